"""Hidden states of all sequences between two blocks: in memory while they fit, else in a file beside the output."""

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from quantrs.errors import FileError, InputError
from quantrs.text import human_bytes

if TYPE_CHECKING:
    from typing import BinaryIO

    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float32]

__all__ = ["HiddenStates"]

_HEAD = 4096
"""Bytes before the values: what they are, as JSON."""
_FORMAT = 1


def hidden_path(destination: Path) -> Path:
    """Where the hidden states of the work on `destination` lie."""
    return destination.with_name(f".{destination.name}.quantrs-hidden")


def _next_path(destination: Path) -> Path:
    return destination.with_name(f".{destination.name}.quantrs-hidden-next")


class HiddenStates:
    """float32 ``[n_sequences, length, n_embd]``, read and replaced one sequence at a time by one thread.

    What `checkpoint` saved stays as it is, whatever is set afterwards, until the next `checkpoint`: work that is broken off is
    taken up again from there by `reopen`.

    Parameters
    ----------
    destination : Path
        The output that the work is for; files lie beside it.
    job : str
        What has to be equal for the states to be the same: model, text, options.
    shape : tuple of int
        ``(n_sequences, length, n_embd)``.
    budget : int
        Bytes that may be held in memory.

    Raises
    ------
    InputError
        They do not fit into the budget, and the disk has no room for them either.
    """

    def __init__(self, destination: Path, job: str, shape: tuple[int, int, int], budget: int) -> None:
        self._destination, self._job, self._shape = destination, job, shape
        self._stride = 4 * shape[1] * shape[2]
        self._memory: list[Values | None] | None = [None] * shape[0] if self.nbytes <= budget else None
        self._old: BinaryIO | None = None
        self._new: BinaryIO | None = None
        self._is_new = [False] * shape[0]
        if self._memory is None:
            self._check_room(2 * self.nbytes)

    @staticmethod
    def reopen(destination: Path, job: str, shape: tuple[int, int, int], budget: int) -> "tuple[HiddenStates, int] | None":
        """What the last `checkpoint` of the same job saved, and the block that it said; None when there is none.

        Raises
        ------
        FileError
            The file is there but cannot be read.
        """
        path = hidden_path(destination)
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error
        states = HiddenStates(destination, job, shape, budget)
        with file:
            block = _block_of(file.read(_HEAD), job, shape)
            if block is None or os.fstat(file.fileno()).st_size != _HEAD + states.nbytes:
                return None
        states._old = path.open("rb")
        if states._memory is not None:
            for i in range(shape[0]):
                states._memory[i] = states._read(states._old, i)
            states._old.close()
            states._old = None
        return states, block

    @property
    def nbytes(self) -> int:
        """Bytes of all of them."""
        return self._shape[0] * self._stride

    @property
    def in_memory(self) -> bool:
        """They are held in memory."""
        return self._memory is not None

    def __len__(self) -> int:
        return self._shape[0]

    def __getitem__(self, i: int) -> "Values":
        """Those of sequence `i`: ``[length, n_embd]``, not to be written to."""
        if self._memory is not None:
            values = self._memory[i]
        else:
            file = self._new if self._is_new[i] else self._old
            values = None if file is None else self._read(file, i)
        if values is None:
            raise KeyError(i)
        return values

    def __setitem__(self, i: int, values: "Values") -> None:
        """Replace those of sequence `i`."""
        import numpy as np

        if values.shape != self._shape[1:] or values.dtype != np.float32:
            raise InputError(f"hidden states of sequence {i}: found {values.dtype} {values.shape}, expected float32 {self._shape[1:]}")
        if self._memory is not None:
            self._memory[i] = values
            return
        if self._new is None:
            self._new = self._create(_next_path(self._destination))
        self._write(self._new, i, values)
        self._is_new[i] = True

    def checkpoint(self, block: int) -> None:
        """Save them as what goes into `block`: whole and on disk when this returns, and nothing is changed when it fails.

        Raises
        ------
        FileError
            They cannot be written.
        """
        path = _next_path(self._destination)
        if self._new is None:
            self._new = self._create(path)
        try:
            for i in range(len(self)):
                if not self._is_new[i]:
                    self._write(self._new, i, self[i])
            self._new.flush()
            os.fsync(self._new.fileno())
            self._new.seek(0)
            self._new.write(_head(self._job, self._shape, block))
            self._new.flush()
            os.fsync(self._new.fileno())
            self._close()
            path.replace(hidden_path(self._destination))
        except OSError as error:
            raise FileError(f"{path}: cannot be written: {error.strerror or error}") from error
        if self._memory is None:
            self._old = hidden_path(self._destination).open("rb")

    def close(self) -> None:
        """Close the files; what `checkpoint` saved stays."""
        self._close()
        _next_path(self._destination).unlink(missing_ok=True)

    def remove(self) -> None:
        """Close and delete the files."""
        self._close()
        self.discard(self._destination)

    @staticmethod
    def discard(destination: Path) -> None:
        """Delete what work on `destination` that was broken off has left."""
        for path in (hidden_path(destination), _next_path(destination)):
            path.unlink(missing_ok=True)

    def _close(self) -> None:
        for file in (self._old, self._new):
            if file is not None:
                file.close()
        self._old = self._new = None
        self._is_new = [False] * len(self)

    def _create(self, path: Path) -> "BinaryIO":
        self._check_room(self.nbytes)
        try:
            file = path.open("w+b")
            file.truncate(_HEAD + self.nbytes)
        except OSError as error:
            raise FileError(f"{path}: cannot be written: {error.strerror or error}") from error
        return file

    def _read(self, file: "BinaryIO", i: int) -> "Values":
        import numpy as np

        file.seek(_HEAD + i * self._stride)
        raw = file.read(self._stride)
        if len(raw) != self._stride:
            raise FileError(f"{file.name}: ends too early; it was changed while it was in use")
        return np.frombuffer(raw, "<f4").reshape(self._shape[1:])

    def _write(self, file: "BinaryIO", i: int, values: "Values") -> None:
        try:
            file.seek(_HEAD + i * self._stride)
            file.write(values.astype("<f4", copy=False).tobytes())
        except OSError as error:
            raise FileError(f"{file.name}: cannot be written: {error.strerror or error}") from error

    def _check_room(self, n_bytes: int) -> None:
        folder = self._destination.parent
        try:
            free = shutil.disk_usage(folder).free
        except OSError as error:
            raise FileError(f"{folder}: cannot look at the disk: {error.strerror or error}") from error
        if free < n_bytes:
            raise InputError(
                f"{folder}: not enough disk space: hidden states need {human_bytes(n_bytes)} ({n_bytes} bytes), {human_bytes(free)} are "
                "free; make room, raise the memory budget, or use fewer or shorter sequences"
            )


def _head(job: str, shape: tuple[int, int, int], block: int) -> bytes:
    text = json.dumps({"quantrs_hidden": _FORMAT, "job": job, "shape": shape, "block": block}).encode()
    if len(text) >= _HEAD:
        raise ValueError(f"job: {len(text)} bytes, expected a hash or another short text")
    return text.ljust(_HEAD)


def _block_of(head: bytes, job: str, shape: tuple[int, int, int]) -> int | None:
    """The block, if the states are of this job."""
    try:
        found = json.loads(head)
    except ValueError:
        return None
    if not isinstance(found, dict) or found.get("quantrs_hidden") != _FORMAT:
        return None
    if found.get("job") != job or found.get("shape") != list(shape) or not isinstance(found.get("block"), int):
        return None
    return int(found["block"])
