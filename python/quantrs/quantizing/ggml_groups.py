"""Blocks of GGUF files that are nothing but codes and a scale, as groups of 32."""

from typing import TYPE_CHECKING

import numpy as np

from quantrs import _native
from quantrs.group_quantized import GroupQuantized, group_indices

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BLOCK_BITS", "groups_of_blocks"]

BLOCK_BITS = {"Q4_0": 4, "Q5_0": 5, "Q8_0": 8}
"""Types whose values are a code less the middle of its range, times a scale in float16 that is stored first.

The minima of Q4_1 and Q5_1 are no multiples of their scales, and super-blocks have scales of their own.
"""

_BLOCK = 32


def groups_of_blocks(raw: "NDArray[np.uint8]", type_name: str, shape: tuple[int, int]) -> GroupQuantized:
    """A matrix of blocks, ``[out_features, in_features]``, as codes and scales. Values are the same; a scale may be negative.

    Raises
    ------
    InputError
        A scale is infinite or NaN.
    """
    n_out, n_in = shape
    bits, n_groups = BLOCK_BITS[type_name], n_in // _BLOCK
    values = np.empty(shape, np.float32)
    _native.convert_rows(raw, type_name, values.reshape(-1).view(np.uint8), "F32", n_in)
    blocks = raw.reshape(n_out, n_groups, -1)
    scales = np.ascontiguousarray(blocks[..., :2]).view("<f2")[..., 0].astype(np.float32)
    # A product of float16 and a few bits is exact in float32, and so is its quotient.
    quants = values.reshape(n_out, n_groups, _BLOCK) / np.where(scales, scales, np.float32(1))[..., np.newaxis]
    middle = np.int16(1 << (bits - 1))
    return GroupQuantized(
        codes=(quants.astype(np.int16) + middle).astype(np.uint8).reshape(shape),
        scales=scales,
        zeros=np.full(scales.shape, middle, np.uint8),
        g_idx=group_indices(n_in, _BLOCK),
        bits=bits,
        group_size=_BLOCK,
        symmetric=True,
    )
