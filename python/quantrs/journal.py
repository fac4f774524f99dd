"""The journal of an unfinished output: whose work it is, and which tensors are on disk.

Two hidden files lie beside the output ``DST`` while it is being made::

    .DST.quantrs-part       the file itself, full size from the start, tensors filled in one by one
    .DST.quantrs-journal    this journal; the lock on it is the lock on DST

The journal is text, one JSON object a line: first the job (`Job`), then a line per finished tensor with the CRC-32 of its
bytes, at the end ``{"complete": true}`` once everything is synced and only the renaming is left. A line that a crash cut
short is dropped. The checksums are compared with the part file before a record is believed, so the journal need not be
synced after every tensor, and even a power failure cannot make a resumed file differ.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantrs.errors import FileError, InputError

if TYPE_CHECKING:
    from typing import Any

__all__ = ["Job", "Journal", "Record", "journal_path", "part_path"]

_FORMAT = 1


def part_path(destination: Path) -> Path:
    """Where `destination` grows until it is whole."""
    return destination.with_name(f".{destination.name}.quantrs-part")


def journal_path(destination: Path) -> Path:
    """Where the journal of the work on `destination` lies."""
    return destination.with_name(f".{destination.name}.quantrs-journal")


@dataclass(frozen=True, kw_only=True)
class Job:
    """The fingerprint of a piece of work: equal jobs write equal bytes."""

    version: str
    """Of quantrs."""
    source: tuple[tuple[str, int, int], ...]
    """Absolute path, bytes and modification time in ns of each source file."""
    source_header: str
    """Hash of the headers of the source files."""
    type: str
    """``Q4_K_M``."""
    options: str
    """Every option of the plan, as text."""
    imatrix: str | None
    """Hash of the importance matrix file, or of calibration data and recipe."""
    outputs: tuple[tuple[str, int], ...]
    """Name and final bytes of each file to be written."""
    output_headers: str
    """Hash of the headers to be written: names, types and metadata as planned."""

    def to_json(self) -> dict[str, object]:
        """The journal's first line."""
        return {"quantrs_journal": _FORMAT} | {name: getattr(self, name) for name in self.__dataclass_fields__}

    @staticmethod
    def from_json(line: "dict[str, Any] | None") -> "Job | None":
        """Read the first line; None when it is not one of this version of the format."""
        if line is None or line.get("quantrs_journal") != _FORMAT:
            return None
        try:
            return Job(
                version=str(line["version"]),
                source=tuple((str(path), int(nbytes), int(mtime)) for path, nbytes, mtime in line["source"]),
                source_header=str(line["source_header"]),
                type=str(line["type"]),
                options=str(line["options"]),
                imatrix=None if line["imatrix"] is None else str(line["imatrix"]),
                outputs=tuple((str(name), int(nbytes)) for name, nbytes in line["outputs"]),
                output_headers=str(line["output_headers"]),
            )
        except (KeyError, TypeError, ValueError):
            return None

    def difference(self, other: "Job") -> str:
        """What sets two jobs apart, in words; empty when nothing does."""
        words = {
            "source_header": "source metadata",
            "imatrix": "importance matrix, calibration data or recipe",
            "output_headers": "planned metadata",
        }
        parts = []
        for name in self.__dataclass_fields__:
            there, here = getattr(self, name), getattr(other, name)
            if there != here:
                shown = f" ({there} there, {here} here)" if name in ("version", "type") else ""
                parts.append(words.get(name, name) + shown)
        return ", ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Record:
    """One finished tensor."""

    file: int
    """Index of the output file."""
    tensor: str
    crc32: int
    clipped_blocks: int
    errors: tuple[float, float, float] | None
    """Sum of squared errors, sum of squares, largest error; None unless measured."""


class Journal:
    """The open, locked journal of one output. Use `Journal.lock`, and leave through `close` or `remove`."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd: int | None = fd
        self.job: Job | None = None
        """The job found in the file; None when there was none (or not a whole one)."""
        self.records: list[Record] = []
        """The records found in the file."""
        self.complete = False
        """Everything is written and synced; only renaming is left."""
        self.foreign = False
        """The file has content, but not of this version of the format."""
        self._good_bytes = 0
        self._read()

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self._path

    @property
    def is_open(self) -> bool:
        """The lock is held; `remove` and `close` give it up."""
        return self._fd is not None

    @property
    def holds_work(self) -> bool:
        """Something would be lost by starting afresh."""
        return bool(self.records) or self.complete or self.foreign

    @staticmethod
    @contextlib.contextmanager
    def lock(destination: Path) -> "Iterator[Journal]":
        """Create or open the journal beside `destination` and hold its lock; on leaving, an empty journal is removed.

        Raises
        ------
        InputError
            Another process holds the lock.
        FileError
            The file cannot be made.
        """
        path = journal_path(destination)
        journal = Journal(path, _open_locked(path, destination))
        try:
            yield journal
        finally:
            if journal.job is None and not journal.foreign:
                journal.remove()
            journal.close()

    def start(self, job: Job) -> None:
        """Empty the journal and write down whose it is."""
        os.ftruncate(self._open_fd(), 0)
        self.job, self.records, self.complete, self.foreign = job, [], False, False
        self._append(job.to_json())

    def forget(self) -> None:
        """Empty the journal, so that leaving without `start` removes it."""
        os.ftruncate(self._open_fd(), 0)
        self.job, self.records, self.complete, self.foreign = None, [], False, False

    def resume(self) -> None:
        """Cut off a line that was not finished, so that new ones can follow."""
        os.ftruncate(self._open_fd(), self._good_bytes)

    def add(self, record: Record) -> None:
        """Write down a finished tensor."""
        self.records.append(record)
        line: dict[str, object] = {"file": record.file, "tensor": record.tensor, "crc32": record.crc32}
        if record.clipped_blocks:
            line["clipped_blocks"] = record.clipped_blocks
        if record.errors is not None:
            line["errors"] = record.errors
        self._append(line)

    def set_complete(self, *, sync: bool) -> None:
        """Say that all bytes are on disk. With several files to rename, `sync` makes a power failure between two renames harmless."""
        self._append({"complete": True})
        if sync:
            os.fsync(self._open_fd())
        self.complete = True

    def remove(self) -> None:
        """Delete the file and give up the lock."""
        if self._fd is None:
            return
        if os.name == "nt":  # an open file cannot be deleted there
            self.close()
        self._path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Give up the lock and keep the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open_fd(self) -> int:
        if self._fd is None:
            raise ValueError("the journal is closed")
        return self._fd

    def _append(self, line: dict[str, object]) -> None:
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        try:
            while data:
                data = data[os.write(self._open_fd(), data) :]
        except OSError as error:
            raise FileError(f"{self._path}: cannot write the journal: {error.strerror}") from error

    def _read(self) -> None:
        os.lseek(self._open_fd(), 0, os.SEEK_SET)
        with open(self._open_fd(), "rb", closefd=False) as file:
            for number, raw in enumerate(file):
                line = _parse(raw)
                if number == 0:
                    self.job = Job.from_json(line)
                    self.foreign = self.job is None and raw.endswith(b"\n")
                record = _record(line)
                if self.job is None or line is None or (number and record is None and "complete" not in line):
                    return
                self.complete |= "complete" in line
                self.records += [record] if record else []
                self._good_bytes += len(raw)


def _parse(raw: bytes) -> dict[str, object] | None:
    try:
        line = json.loads(raw) if raw.endswith(b"\n") else None
    except ValueError:
        return None
    return line if isinstance(line, dict) else None


def _record(line: dict[str, object] | None) -> Record | None:
    names = ("file", "tensor", "crc32", "clipped_blocks", "errors")
    file, tensor, crc32, clipped, errors = (line.get(name) for name in names) if line else (None,) * len(names)
    if not (isinstance(file, int) and isinstance(tensor, str) and isinstance(crc32, int)):
        return None
    sums = (float(errors[0]), float(errors[1]), float(errors[2])) if isinstance(errors, list) and len(errors) == 3 else None
    return Record(file=file, tensor=tensor, crc32=crc32, clipped_blocks=clipped if isinstance(clipped, int) else 0, errors=sums)


def _open_locked(path: Path, destination: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    while True:
        try:
            fd = os.open(path, flags, 0o666)
        except OSError as error:
            raise FileError(f"{destination}: cannot write beside it ({path.name}): {error.strerror}") from error
        if not _try_lock(fd):
            os.close(fd)
            raise InputError(
                f"{destination}: another quantrs process is writing it (it holds {path}); wait for it, or choose another output"
            )
        if _is_still_at(fd, path):
            return fd
        os.close(fd)  # its owner removed it between our opening and locking


def _is_still_at(fd: int, path: Path) -> bool:
    try:
        there = path.lstat()
    except OSError:
        return False
    return os.path.samestat(os.fstat(fd), there)


if sys.platform == "win32":
    import msvcrt

    def _try_lock(fd: int) -> bool:
        os.lseek(fd, 1 << 30, os.SEEK_SET)  # a byte that is never written, so that the lock hides nothing
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _try_lock(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True  # a file system without locks (some network mounts): better to work than to refuse
        return True
