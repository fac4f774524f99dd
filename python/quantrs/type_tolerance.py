"""How far a tensor type may take values from what they were: the yardstick by which ``quantrs verify A B`` compares files.

A block format rounds each value to a grid. Where no value lies beyond the grid's end, no error is larger than half of the widest
gap, and so neither is their root mean square. Searches for better scales let values go beyond the end, but only where the
squares of the errors, weighted by importance, become fewer by it; half as much again is allowed for that. And since zero is on
the grid, rounding never loses more than the values themselves. So the root mean square of the errors of a row has a limit that
rounding keeps with room to spare and another tensor's values do not. ``docs/guides/compare-models.md`` derives the numbers.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["GRIDS", "Grid", "is_bounded_each", "row_tolerance", "tolerance"]

_SUPER_BLOCK = 256
_CLIPPING = 1.5
_SCALE_ROUNDING = 2.0**-10
"""Scale and offset are float16 numbers, each with a relative error of up to 2^-11."""


@dataclass(frozen=True)
class Grid:
    """Half of the widest gap of a format's grid, in terms of the values that share a scale."""

    block: int
    """Values that share a scale."""
    measure: Literal["largest", "range", "rms"]
    """What the gap is a part of: the largest magnitude, the distance from smallest to largest with zero among them, the root mean
    square."""
    half_gap: float
    super_block: float = 0.0
    """What rounding the scales themselves to a few bits adds, of the largest such measure among 256 values."""


GRIDS: dict[str, Grid] = {
    # Two's complement: the end opposite to the largest magnitude is one step short, so that a whole step may be lost there.
    "Q4_0": Grid(32, "largest", 1 / 8),
    "Q4_1": Grid(32, "range", 1 / 30),
    "Q5_0": Grid(32, "largest", 1 / 16),
    "Q5_1": Grid(32, "range", 1 / 62),
    "Q8_0": Grid(32, "largest", 1 / 254),
    # Scale and minimum of a sub-block have 4 or 6 bits: half a step of theirs, for the scale times the largest quant.
    "Q2_K": Grid(16, "range", 1 / 6, 1 / 15),
    "Q3_K": Grid(16, "largest", 1 / 4, 1 / 62),
    "Q4_K": Grid(32, "range", 1 / 30, 1 / 63),
    "Q5_K": Grid(32, "range", 1 / 62, 1 / 63),
    "Q6_K": Grid(16, "largest", 1 / 32, 1 / 254),
    # The widest gaps: 89 to 113 of 127 inside, 113 to 127 at the end.
    "IQ4_NL": Grid(32, "largest", 14 / 127),
    "IQ4_XS": Grid(32, "largest", 14 / 127, 1 / 62),
    # 4 to 6 of 6; the scale is a power of two below, so that 6 may stand for 8, or has three bits after the point.
    "MXFP4": Grid(32, "largest", 1 / 4),
    "NVFP4": Grid(16, "largest", 1 / 6 + 1 / 16),
    # -d, 0, d.
    "TQ1_0": Grid(256, "largest", 1 / 2),
    "TQ2_0": Grid(256, "largest", 1 / 2),
    "Q2_0": Grid(64, "largest", 1 / 2),
    # Signs alone: nothing is closer to a value than its root mean square.
    "Q1_0": Grid(128, "rms", 1.0),
    # Tables of vectors, which have no gap: about twice the error of normally distributed values.
    "IQ3_S": Grid(256, "rms", 0.35),
    "IQ3_XXS": Grid(256, "rms", 0.45),
    "IQ2_S": Grid(256, "rms", 0.65),
    "IQ2_XS": Grid(256, "rms", 0.70),
    "IQ2_XXS": Grid(256, "rms", 0.75),
    "IQ1_M": Grid(256, "rms", 0.85),
    "IQ1_S": Grid(256, "rms", 0.90),
}
"""Every type that can be decoded, except the floats."""

_FLOAT_ROUNDING = {"F32": 2.0**-23, "F16": 2.0**-11, "BF16": 2.0**-8}
"""Relative; float32 for sums such as Gemma's 1 + weight and back, BF16 also for cutting off, as some tools do."""
_SMALLEST_HALF = 2.0**-25


def is_bounded_each(type_name: str) -> bool:
    """Whether the limit holds for each value, not only for the root mean square of a row: floats, and Q8_0, whose scale is not
    searched for.
    """
    return type_name in _FLOAT_ROUNDING or type_name == "Q8_0"


def tolerance(type_name: str, values: "npt.NDArray[np.float32]") -> "npt.NDArray[np.float32]":
    """What storing `values` as a type may change them by.

    Parameters
    ----------
    type_name : str
        ``Q4_K``, as files call it.
    values : ndarray
        float32 ``[n_rows, n_cols]``; before rounding, or as near to that as there is.

    Returns
    -------
    ndarray
        float32 ``[n_rows, n_cols]``, not negative.

    Examples
    --------
    >>> import numpy as np
    >>> round(float(tolerance("Q8_0", np.full((1, 32), 127, np.float32))[0, 0]), 2)
    0.62
    """
    limits, block = _limits(type_name, values)
    return np.repeat(limits, block, axis=1)


def row_tolerance(type_name: str, values: "npt.NDArray[np.float32]") -> "npt.NDArray[np.float64]":
    """Root of the sum over each row of the squares of `tolerance`: float64 ``[n_rows]``."""
    limits, block = _limits(type_name, values)
    roots: npt.NDArray[np.float64] = np.sqrt(block * np.sum(np.square(limits, dtype=np.float64), axis=1))
    return roots


def _limits(type_name: str, values: "npt.NDArray[np.float32]") -> "tuple[npt.NDArray[np.float32], int]":
    """One limit for every so many values of a row."""
    rounding = _FLOAT_ROUNDING.get(type_name)
    if rounding is not None:
        return np.abs(values) * np.float32(rounding) + np.float32(_SMALLEST_HALF if type_name == "F16" else 2.0**-126), 1
    grid = GRIDS[type_name]
    measures = _measures(grid, values)
    limits = grid.half_gap * measures + _SCALE_ROUNDING * _largest(grid.block, values)
    if grid.super_block:
        n_measures = _SUPER_BLOCK // grid.block
        over_all = measures.reshape(len(values), -1, n_measures).max(axis=2)
        limits += grid.super_block * np.repeat(over_all, n_measures, axis=1)
    if not is_bounded_each(type_name):
        limits *= _CLIPPING
    return limits.astype(np.float32, copy=False), grid.block


def _measures(grid: Grid, values: "npt.NDArray[np.float32]") -> "npt.NDArray[np.float32]":
    blocks = values.reshape(len(values), -1, grid.block)
    if grid.measure == "largest":
        return _largest(grid.block, values)
    if grid.measure == "range":
        zero = np.float32(0)
        result: npt.NDArray[np.float32] = np.maximum(blocks.max(axis=2), zero) - np.minimum(blocks.min(axis=2), zero)
        return result
    root: npt.NDArray[np.float32] = np.sqrt(np.mean(np.square(blocks), axis=2))
    return root


def _largest(block: int, values: "npt.NDArray[np.float32]") -> "npt.NDArray[np.float32]":
    blocks = values.reshape(len(values), -1, block)
    result: npt.NDArray[np.float32] = np.maximum(blocks.max(axis=2), -blocks.min(axis=2))
    return result
