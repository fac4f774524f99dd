"""The order of bits in each format's tensors, both ways: exact, whole layers in memory.

All of them are one little-endian stream of bits per row (`_native.pack_codes`); formats differ in the axis that it follows, in the order
of outputs within a word, and in what is stored for a zero point.
"""

from typing import TYPE_CHECKING

import numpy as np

from quantrs import _native

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Codes = NDArray[np.uint8]
    Words = NDArray[np.int32]

__all__ = [
    "pack_awq",
    "pack_down",
    "pack_gptq_zeros",
    "pack_nibbles",
    "unpack_awq",
    "unpack_down",
    "unpack_gptq_zeros",
    "unpack_nibbles",
]

_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Nibble k of a word holds this of its eight outputs."""

_ONES = {2: 0x5555_5555, 4: 0x1111_1111, 8: 0x0101_0101}
"""A one in every lane of a word."""


def pack_down(codes: "Codes", bits: int) -> "Words":
    """Codes ``[n_cols, n_rows]`` as a stream down the rows of the words: ``[ceil(n_rows * bits / 32), n_cols]``.

    Of codes ``[out, in]`` this is GPTQ's ``qweight``; of transposed zero points it is compressed-tensors' ``weight_zero_point``.
    """
    return np.ascontiguousarray(_native.pack_codes(np.ascontiguousarray(codes), bits).T)


def unpack_down(words: "Words", bits: int, n_rows: int) -> "Codes":
    """Inverse of `pack_down`: codes ``[n_cols, n_rows]``."""
    return _native.unpack_codes(np.ascontiguousarray(words.T), bits, n_rows)


def pack_gptq_zeros(zeros: "Codes", bits: int, *, version: int) -> "Words":
    """Zero points ``[out, n_groups]`` as GPTQ's ``qzeros``: ``[n_groups, ceil(out * bits / 32)]``.

    Version 1 holds them minus one. For 2, 4 and 8 bits the writer takes the ones from the whole word, so that a zero point of 0 borrows
    from its neighbour; for 3 bits each wraps alone.
    """
    along = np.ascontiguousarray(zeros.T)
    if version == 1 and bits not in _ONES:
        along = (along - np.uint8(1)) & np.uint8((1 << bits) - 1)
    words = _native.pack_codes(along, bits)
    if version == 1 and bits in _ONES:
        words = (words.view(np.uint32) - np.uint32(_ONES[bits])).view(np.int32)
    return words


def unpack_gptq_zeros(words: "Words", bits: int, n_out: int, *, version: int, wrap: bool | None = None) -> "Codes":
    """Inverse of `pack_gptq_zeros`: zero points ``[n_out, n_groups]``; `wrap` if each was made smaller alone whatever the bits."""
    wrap = bits not in _ONES if wrap is None else wrap
    if version == 1 and not wrap:
        words = (words.view(np.uint32) + np.uint32(_ONES[bits])).view(np.int32)
    along = _native.unpack_codes(np.ascontiguousarray(words), bits, n_out)
    if version == 1 and wrap:
        along = (along + np.uint8(1)) & np.uint8((1 << bits) - 1)
    return np.ascontiguousarray(along.T)


def pack_awq(codes: "Codes") -> "Words":
    """4-bit codes ``[out, n_cols]`` as AWQ's ``qweight`` or ``qzeros``: ``[n_cols, out / 8]``. 8 divides out."""
    words = np.zeros((codes.shape[0] // 8, codes.shape[1]), np.uint32)
    for nibble, output in enumerate(_AWQ_ORDER):
        words |= codes[output::8].astype(np.uint32) << np.uint32(4 * nibble)
    return np.ascontiguousarray(words.T).view(np.int32)


def unpack_awq(words: "Words") -> "Codes":
    """Inverse of `pack_awq`: codes ``[8 * n_words, n_rows]``."""
    down = np.ascontiguousarray(words.T).view(np.uint32)
    codes = np.empty((8 * down.shape[0], down.shape[1]), np.uint8)
    for nibble, output in enumerate(_AWQ_ORDER):
        codes[output::8] = down >> np.uint32(4 * nibble) & np.uint32(15)
    return codes


def pack_nibbles(codes: "Codes") -> "Codes":
    """4-bit codes ``[n_rows, n_cols]`` in bytes ``[n_rows, n_cols / 2]``, the even column in the low nibble; n_cols is even."""
    return codes[:, ::2] | codes[:, 1::2] << np.uint8(4)


def unpack_nibbles(packed: "Codes") -> "Codes":
    """Inverse of `pack_nibbles`."""
    codes = np.empty((packed.shape[0], 2 * packed.shape[1]), np.uint8)
    codes[:, ::2], codes[:, 1::2] = packed & np.uint8(15), packed >> np.uint8(4)
    return codes
