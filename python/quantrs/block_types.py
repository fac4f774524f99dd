"""The ggml block types by name: what one block holds, and what can be done with it."""

import functools
from dataclasses import dataclass

from quantrs import _native
from quantrs.errors import InputError

__all__ = ["BlockType", "find", "types"]


@dataclass(frozen=True, kw_only=True)
class BlockType:
    """One ggml type."""

    name: str
    """Lower case: ``q4_k``."""
    id: int
    """ggml type id, as stored in GGUF files."""
    block_size: int
    """Values per block; a row's length must be a multiple of it."""
    type_size: int
    """Bytes per block."""
    importance: str
    """What importance weights do: ``ignored``, ``used`` or ``required``."""
    can_quantize: bool
    can_dequantize: bool

    @property
    def bits_per_weight(self) -> float:
        """Bits that one value takes, scales included."""
        return self.type_size * 8 / self.block_size

    def row_bytes(self, n_cols: int) -> int:
        """Bytes of a row of `n_cols` values.

        Raises
        ------
        InputError
            `n_cols` is not a multiple of the block size.
        """
        if n_cols % self.block_size:
            raise InputError(
                f"{self.name}: found rows of {n_cols} values (the last axis), expected a multiple of {self.block_size}, "
                "the block size; pad the rows or choose a type of smaller blocks such as q8_0"
            )
        return n_cols // self.block_size * self.type_size


@functools.cache
def _by_name() -> dict[str, BlockType]:
    return {
        f.name.lower(): BlockType(
            name=f.name.lower(),
            id=f.id,
            block_size=f.block_len,
            type_size=f.block_bytes,
            importance=f.importance,
            can_quantize=f.can_quantize,
            can_dequantize=f.can_dequantize,
        )
        for f in _native.block_formats()
    }


def types() -> list[BlockType]:
    """Every type that arrays can be quantized to or dequantized from, by ascending ggml id.

    Examples
    --------
    >>> import quantrs as qr
    >>> next(t.bits_per_weight for t in qr.types() if t.name == "q4_k")
    4.5
    """
    return [t for t in _by_name().values() if t.can_quantize or t.can_dequantize]


def find(name: str) -> BlockType:
    """Look a type up by its name, in any letter case.

    Raises
    ------
    TypeError
        `name` is not a string.
    InputError
        There is no such type; the message lists those there are.
    """
    if not isinstance(name, str):
        raise TypeError(f"found a type of class {type(name).__name__}, expected a name such as 'q4_k'")
    found = _by_name().get(name.lower())
    if found is None:
        raise InputError(f"found the type {name!r}, expected one of {', '.join(t.name for t in types())}")
    return found
