"""Weights as integers in groups: the one form that GPTQ, AWQ and compressed-tensors checkpoints share."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from quantrs import _native
from quantrs import threads as thread_counts
from quantrs.contiguous import contiguous_float32
from quantrs.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["GroupQuantized", "Rule", "ScaleType", "float32_matrix", "quantize_groups"]

Rule = Literal["gptq", "gptq-wide", "minmax", "awq"]
ScaleType = Literal["f32", "f16", "bf16"]


@dataclass(frozen=True, eq=False)
class GroupQuantized:
    """A weight as codes with a scale and a zero point per group of columns.

    ``w ~ (codes - zeros[:, g_idx]) * scales[:, g_idx]``.

    Attributes
    ----------
    codes : ndarray
        uint8 ``[out_features, in_features]`` in the column order of w, ``0..2**bits - 1``.
    scales : ndarray
        float32 ``[out_features, n_groups]``.
    zeros : ndarray
        uint8 ``[out_features, n_groups]``; ``2**(bits - 1)`` when symmetric.
    g_idx : ndarray
        int32 ``[in_features]``: the group of every column. ``column // group_size`` unless activation order gave the groups.
    bits : int
        2 to 8.
    group_size : int
        Columns in a group; `in_features` where -1 was asked for.
    symmetric : bool
        Whether all zero points are in the middle.
    """

    codes: "npt.NDArray[np.uint8]"
    scales: "npt.NDArray[np.float32]"
    zeros: "npt.NDArray[np.uint8]"
    g_idx: "npt.NDArray[np.int32]"
    bits: int
    group_size: int
    symmetric: bool

    def __post_init__(self) -> None:
        shape = self.codes.shape
        if len(shape) != 2 or self.g_idx.shape != shape[1:]:
            raise InputError(f"GroupQuantized: found codes of shape {shape}, g_idx of {self.g_idx.shape}, expected (out, in) and (in,)")
        groups = (shape[0], self.n_groups)
        if self.scales.shape != groups or self.zeros.shape != groups:
            raise InputError(
                f"GroupQuantized: found scales of shape {self.scales.shape}, zeros of {self.zeros.shape}, expected {groups}: "
                f"groups of {self.group_size} of {shape[1]} columns"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """``(out_features, in_features)``."""
        return self.codes.shape[0], self.codes.shape[1]

    @property
    def n_groups(self) -> int:
        """Groups in a row."""
        return -(-self.shape[1] // self.group_size)

    @property
    def in_order(self) -> bool:
        """Whether groups are runs of columns: ``g_idx[i] == i // group_size``."""
        return bool(np.array_equal(self.g_idx, group_indices(self.codes.shape[1], self.group_size)))

    def dequantize(self) -> "npt.NDArray[np.float32]":
        """Give the values that the codes stand for, float32 ``[out_features, in_features]``: ``code - zero`` times the scale."""
        values = self.codes.astype(np.float32)
        if self.in_order and self.codes.shape[1] % self.group_size == 0:
            grouped = values.reshape(len(values), self.n_groups, self.group_size)
            grouped -= self.zeros[..., np.newaxis]
            grouped *= self.scales[..., np.newaxis]
            return values
        values -= self.zeros[:, self.g_idx]
        values *= self.scales[:, self.g_idx]
        return values


def group_indices(in_features: int, group_size: int) -> "npt.NDArray[np.int32]":
    """Give the groups of columns in their own order, int32 ``[in_features]``."""
    return (np.arange(in_features) // group_size).astype(np.int32)


def quantize_groups(
    w: "npt.ArrayLike",
    *,
    bits: int = 4,
    group_size: int = 128,
    symmetric: bool = True,
    rule: Rule = "gptq",
    scale_type: ScaleType = "f32",
    mse: float | None = None,
    min_zero: int = 0,
    threads: int | None = None,
) -> GroupQuantized:
    """Round every weight to the nearest point of its group's grid: quantizing without calibration.

    Parameters
    ----------
    w : array_like
        ``[out_features, in_features]`` of float32, float16, bfloat16 or float64, which is rounded to float32.
    bits : int
        2 to 8.
    group_size : int
        Columns that share a scale; a divisor of `in_features`, or -1 for one group per row.
    symmetric : bool
        The zero point is ``2**(bits - 1)``; otherwise every group has its own.
    rule : {"gptq", "gptq-wide", "minmax", "awq"}
        Whose way from a group's ends to a scale. ``"gptq"`` is that of AutoGPTQ and gptqmodel, which clips half of a symmetric
        group that has no negative weight; ``"gptq-wide"`` does not. ``"minmax"`` is that of compressed-tensors, ``"awq"`` that of
        AutoAWQ; these two also compute in `scale_type`, step by step.
    scale_type : {"f32", "f16", "bf16"}
        What scales are rounded to before codes are chosen.
    mse : float, optional
        Try the ends times 1, 0.99, .. 0.21 and keep those with the least sum of ``abs(error)**mse``; 2.4 is usual.
    min_zero : {0, 1}
        Smallest zero point where they are not symmetric. 1 for files that store it less one and whose readers take 0 wrong; the
        scale grows so that nothing is clipped.
    threads : int, optional
        By default all CPUs that the process may use. The result does not depend on it.

    Returns
    -------
    GroupQuantized
        Codes in the column order of w.

    Raises
    ------
    TypeError
        w does not hold floating point numbers.
    InputError
        A shape, an argument, or a value that is infinite or NaN; the message names row and column.

    Examples
    --------
    >>> import numpy as np
    >>> import quantrs as qr
    >>> w = np.random.default_rng(0).standard_normal((8, 256), np.float32)
    >>> q = qr.quantize_groups(w, bits=4, group_size=64)
    >>> q.codes.shape, q.scales.shape, int(q.codes.max())
    ((8, 256), (8, 4), 15)
    >>> bool(abs(q.dequantize() - w).max() <= q.scales.max() / 2 + 1e-6)
    True
    """
    weights = float32_matrix(w, "quantize_groups")
    codes, scales, zeros = _native.quantize_groups(
        weights,
        bits=bits,
        group_size=group_size,
        symmetric=symmetric,
        rule=rule,
        scale_type=scale_type,
        mse=mse,
        min_zero=min_zero,
        threads=thread_counts.checked(threads),
    )
    size = weights.shape[1] if group_size == -1 else group_size
    return GroupQuantized(codes, scales, zeros, group_indices(weights.shape[1], size), bits, size, symmetric)


def float32_matrix(values: "npt.ArrayLike", where: str) -> "npt.NDArray[np.float32]":
    """Let any floating point matrix through as C-contiguous float32; a copy only where one is needed."""
    array = np.asarray(values)
    if array.dtype.name not in ("float32", "float16", "bfloat16", "float64"):
        raise TypeError(f"{where}: found an array of {array.dtype}, expected float32, float16, bfloat16 or float64")
    if array.ndim != 2:
        raise InputError(f"{where}: found an array of shape {array.shape}, expected two axes")
    with np.errstate(over="ignore"):  # a value beyond float32 becomes infinite, and is then refused with its place
        return contiguous_float32(array)
