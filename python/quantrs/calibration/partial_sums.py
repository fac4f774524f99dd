"""Sums of an importance matrix that is not finished, in a file beside the output: work that was broken off goes on from there."""

import hashlib
import json
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from quantrs import _native
from quantrs.fingerprint import source_hash, source_stamp
from quantrs.whole_files import write_whole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from quantrs._native import Gguf, ImatrixSums

__all__ = ["PartialSums", "key_of"]

_FORMAT = 1
_EVERY_SECONDS = 30.0


def key_of(source: "Gguf", sequences: "NDArray[np.int32]", *more: object) -> str:
    """Tells model, sequences, and what else decides the sums, in a few letters."""
    digest = hashlib.blake2b(digest_size=8)
    for piece in (_native.__version__, source_hash(source), source_stamp(source), sequences.shape, *more):
        digest.update(repr(piece).encode("utf-8", "surrogateescape"))
    digest.update(sequences.astype("<i4").tobytes())
    return digest.hexdigest()


class PartialSums:
    """The file, saved now and then.

    Parameters
    ----------
    destination : Path
        The output.
    key : str
        From `key_of`; it is part of the file's name.
    """

    def __init__(self, destination: Path, key: str) -> None:
        self.path = destination.with_name(f".{destination.name}.{key}.quantrs-sums")
        self._saved = time.monotonic()

    def take_up(self, sums: "ImatrixSums") -> int:
        """Restore `sums`, and say how many sequences they hold; 0, with nothing changed, when there is nothing that is whole."""
        try:
            head, _, state = self.path.read_bytes().partition(b"\n")
            found = json.loads(head)
        except (OSError, ValueError):
            return 0
        if not isinstance(found, dict) or found.get("quantrs_sums") != _FORMAT or found.get("crc32") != zlib.crc32(state):
            return 0
        return sums.n_sequences if sums.restore(state) else 0

    def save(self, sums: "ImatrixSums", *, at_once: bool = False) -> None:
        """Save the sums, if the last time is long ago.

        Raises
        ------
        FileError
            The system refuses.
        """
        if not at_once and time.monotonic() - self._saved < _EVERY_SECONDS:
            return
        state = sums.state()
        head = json.dumps({"quantrs_sums": _FORMAT, "crc32": zlib.crc32(state)}).encode()
        write_whole(self.path, head + b"\n" + state)
        self._saved = time.monotonic()

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)
