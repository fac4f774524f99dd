"""Small files, read and written at once."""

import os
from pathlib import Path

from quantrs.errors import FileError, FormatError

__all__ = ["read_text", "write_whole"]


def read_text(path: "str | os.PathLike[str]") -> str:
    """A text file, newlines as they are.

    Raises
    ------
    FileError
        It cannot be read.
    FormatError
        It is not UTF-8.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: byte {error.start} is not UTF-8 ({error.reason}); expected a plain text file") from None


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
