"""The place where a job writes: may it, is there room, is the work done already, and the final renaming."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from quantrs.errors import FileError, InputError
from quantrs.journal import part_path
from quantrs.text import human_bytes

if TYPE_CHECKING:
    from quantrs.plan import Plan, PlannedFile

__all__ = ["check_absent", "check_names", "check_room", "discard_parts", "has_part", "is_complete", "is_renamed", "publish"]


def check_names(plan: "Plan", inputs: Iterable[str | Path]) -> None:
    """Refuse an output that can never be written: its folder is absent, it is a folder, or it is one of the inputs.

    Raises
    ------
    InputError
    """
    inputs = list(inputs)
    for file in plan.files:
        path = Path(file.path)
        if not path.name:
            raise InputError(f"{str(path)!r} names no file; give the output a name such as model-{plan.file_type}.gguf")
        if not path.parent.is_dir():
            raise InputError(f"{path}: there is no folder {path.parent}; make it first")
        for source in inputs:
            if path.exists() and path.samefile(source):
                raise InputError(f"{path}: the output is the same file as the input {source}; choose another name")
        if os.path.lexists(path) and not (path.is_symlink() or stat.S_ISREG(path.stat().st_mode)):
            raise InputError(f"{path}: found a folder or device of that name; choose another name for the output")


def check_absent(files: "Iterable[PlannedFile]") -> None:
    """Refuse to overwrite.

    Raises
    ------
    InputError
    """
    for file in files:
        if os.path.lexists(file.path):
            raise InputError(f"{file.path}: the file exists already; --force overwrites it, or choose another name")


def check_room(plan: "Plan") -> None:
    """Refuse work whose result the disk cannot hold; what unfinished part files take up counts as room.

    Raises
    ------
    InputError
    """
    folder = Path(plan.files[0].path).parent
    held = sum(_disk_bytes(part_path(Path(file.path))) for file in plan.files)
    free = _free_bytes(folder) + held
    if free < plan.file_bytes:
        raise InputError(
            f"{folder}: not enough disk space: the output needs {human_bytes(plan.file_bytes)} ({plan.file_bytes} bytes), "
            f"{human_bytes(free)} are free; make room, or choose a smaller type or another disk"
        )


def is_complete(plan: "Plan") -> bool:
    """All planned files lie under their final names, with the planned size and header (part files are only renamed when whole)."""
    return all(_matches(file) for file in plan.files)


def has_part(file: "PlannedFile") -> bool:
    """There is a part file of the planned size."""
    try:
        return part_path(Path(file.path)).stat().st_size == file.file_bytes
    except OSError:
        return False


def is_renamed(file: "PlannedFile") -> bool:
    """This file has been moved to its final name already."""
    return not part_path(Path(file.path)).exists() and _matches(file)


def discard_parts(names: Iterable[Path]) -> None:
    """Delete the part files of these outputs."""
    for name in names:
        part_path(name).unlink(missing_ok=True)


def publish(plan: "Plan", *, force: bool) -> None:
    """Give the finished part files their names, and sync the folder.

    Raises
    ------
    FileError
        A file of that name has appeared meanwhile, or the system refuses.
    """
    folders = set()
    for file in plan.files:
        path = Path(file.path)
        if is_renamed(file):
            continue
        if not force and os.path.lexists(path):
            raise FileError(f"{path}: a file of that name has appeared meanwhile; move it away, or add --force, and resume")
        try:
            part_path(path).replace(path)
        except OSError as error:
            raise FileError(f"{path}: cannot rename the finished file: {error.strerror}") from error
        folders.add(path.parent)
    for folder in folders:
        _sync_folder(folder)


def _matches(file: "PlannedFile") -> bool:
    try:
        with Path(file.path).open("rb") as found:
            if os.fstat(found.fileno()).st_size != file.file_bytes:
                return False
            return found.read(len(file.header)) == file.header
    except OSError:
        return False


def _disk_bytes(path: Path) -> int:
    try:
        found = path.stat()
    except OSError:
        return 0
    blocks: int | None = getattr(found, "st_blocks", None)
    return found.st_size if blocks is None else blocks * 512


def _free_bytes(folder: Path) -> int:
    if hasattr(os, "statvfs"):
        found = os.statvfs(folder)
        return found.f_bavail * found.f_frsize
    import shutil

    return shutil.disk_usage(folder).free


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there; the rename is journalled by the file system
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
