"""Small files that are never half there."""

import os
from pathlib import Path

from quantrs.errors import FileError

__all__ = ["write_whole"]


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that has its name only when it is whole and on disk.

    Raises
    ------
    FileError
        The system refuses.
    """
    part = path.with_name(f".{path.name}.quantrs-part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise FileError(f"{path}: cannot be written: {error.strerror or error}") from error
