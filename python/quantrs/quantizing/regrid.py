"""From one grid of integers to another: code by code where the other one contains it, to the nearest elsewhere.

A group of the new grid is contained if the old groups that it lies in have one scale and one zero point, and if all its codes and the zero
point, moved by the same number, fit the new range. Such a group keeps its values; only its scale is rounded to the type of the format.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from quantrs.group_quantized import GroupQuantized, group_indices, quantize_groups
from quantrs.quantizing.dtypes import DTYPES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from quantrs.methods.rounding import Grid
    from quantrs.quantizing.schemes import LayerScheme

__all__ = ["Regridded", "held_exactly", "regrid"]

_CHUNK_WEIGHTS = 1 << 22
_TYPE_NAMES = {"f32": "F32", "f16": "F16", "bf16": "BF16"}


class Regridded(NamedTuple):
    """A layer on its new grid."""

    layer: GroupQuantized
    why_rounded: tuple[str, ...]
    """What the new grid does not contain; empty if every value is kept."""


@dataclass(frozen=True)
class _Source:
    """Groups of the new grid in terms of the old one."""

    scales: "NDArray[np.float32]"
    """``[rows, n_groups]``, of the new groups."""
    zeros: "NDArray[np.int16]"
    alike: "NDArray[np.bool_]"
    """Whether all columns of a group have this scale and this zero point."""


def regrid(q: GroupQuantized, scheme: "LayerScheme", grid: "Grid", *, threads: int | None) -> Regridded:
    """Put a layer onto the grid of `scheme`.

    Parameters
    ----------
    q : GroupQuantized
        Codes ``[out_features, in_features]``.
    scheme : LayerScheme
        Of integers; its group size divides `in_features`.
    grid : Grid
        How groups are rounded that are not contained; its type of scales and smallest zero point hold for all.
    threads : int, optional
        For rounding.

    Raises
    ------
    InputError
        A value is infinite or NaN.
    """
    n_out, n_in = q.shape
    size = n_in if scheme.group_size == -1 else scheme.group_size
    g_idx = _new_groups(q, scheme, size)
    order = slice(None) if (np.diff(g_idx) >= 0).all() else np.argsort(g_idx, kind="stable")
    codes = np.empty_like(q.codes)
    scales = np.empty((n_out, n_in // size), np.float32)
    zeros = np.empty(scales.shape, np.uint8)
    why: dict[str, None] = {}
    for rows in _row_chunks(n_out, n_in):
        part = GroupQuantized(q.codes[rows][:, order], q.scales[rows], q.zeros[rows], q.g_idx[order], q.bits, q.group_size, q.symmetric)
        new, reasons = _regrid_rows(part, scheme, grid, size, threads)
        codes[rows][:, order] = new.codes
        scales[rows], zeros[rows] = new.scales, new.zeros
        why |= dict.fromkeys(reasons)
    return Regridded(GroupQuantized(codes, scales, zeros, g_idx, scheme.bits, size, scheme.symmetric), tuple(why))


def held_exactly(scales: "NDArray[np.float32]", dtype: str) -> bool:
    """Whether a type, ``F16``, ``BF16`` or ``F32``, holds every one of these."""
    with np.errstate(over="ignore"):
        return bool((scales.astype(DTYPES[dtype]).astype(np.float32) == scales).all())


def _row_chunks(n_out: int, n_in: int) -> Iterator[slice]:
    step = max(1, _CHUNK_WEIGHTS // n_in)
    return (slice(start, min(start + step, n_out)) for start in range(0, n_out, step))


def _new_groups(q: GroupQuantized, scheme: "LayerScheme", size: int) -> "NDArray[np.int32]":
    """The group of every column: those of the source, cut to `size`, if the scheme keeps activation order; else runs of columns."""
    in_features = q.shape[1]
    counts = np.bincount(q.g_idx, minlength=q.n_groups)
    if not scheme.desc_act or q.group_size % size or (counts != q.group_size).any():
        return group_indices(in_features, size)
    rank = np.empty(in_features, np.int32)
    rank[np.argsort(q.g_idx, kind="stable")] = np.arange(in_features, dtype=np.int32) % q.group_size
    return q.g_idx * np.int32(q.group_size // size) + rank // np.int32(size)


def _regrid_rows(
    q: GroupQuantized, scheme: "LayerScheme", grid: "Grid", size: int, threads: int | None
) -> tuple[GroupQuantized, list[str]]:
    """Some rows, their columns in the order of the new groups."""
    source = _in_new_groups(q, size)
    grouped = q.codes.reshape(len(q.codes), -1, size)
    min_zero = 0 if scheme.symmetric else grid.min_zero
    shift, fits = _shifts(grouped, source.zeros, scheme, min_zero)
    scales = _rounded_scales(source.scales, grid)
    held = source.alike & fits & np.isfinite(scales)
    zeros = np.where(held, source.zeros + shift, 0).astype(np.uint8)
    # Unsigned bytes wrap, so that a negative shift is right where it fits.
    codes = grouped + shift.astype(np.uint8)[..., np.newaxis]
    g_idx = group_indices(q.shape[1], size)
    rows = np.flatnonzero(~held.all(axis=1))
    if rows.size:
        values = GroupQuantized(q.codes[rows], q.scales[rows], q.zeros[rows], q.g_idx, q.bits, q.group_size, q.symmetric).dequantize()
        near = quantize_groups(
            values,
            bits=scheme.bits,
            group_size=size,
            symmetric=scheme.symmetric,
            rule=grid.rule,
            scale_type=grid.scale_type,
            min_zero=min_zero,
            threads=threads,
        )
        lost = ~held[rows]
        codes[rows] = np.where(lost[..., np.newaxis], near.codes.reshape(len(rows), -1, size), codes[rows])
        scales[rows], zeros[rows] = np.where(lost, near.scales, scales[rows]), np.where(lost, near.zeros, zeros[rows])
    new = GroupQuantized(codes.reshape(q.shape), scales, zeros, g_idx, scheme.bits, size, scheme.symmetric)
    return new, _reasons(q, source, fits, held & (scales != source.scales), grouped, scheme)


def _in_new_groups(q: GroupQuantized, size: int) -> _Source:
    by_group = q.g_idx.reshape(-1, size)
    first = by_group[:, 0]
    scales, zeros = q.scales[:, first], q.zeros[:, first]
    alike = np.ones(scales.shape, np.bool_)
    for group, columns in enumerate(by_group):
        for other in np.unique(columns[columns != columns[0]]):
            alike[:, group] &= (q.scales[:, other] == scales[:, group]) & (q.zeros[:, other] == zeros[:, group])
    return _Source(scales, zeros.astype(np.int16), alike)


def _shifts(
    grouped: "NDArray[np.uint8]", zeros: "NDArray[np.int16]", scheme: "LayerScheme", min_zero: int
) -> "tuple[NDArray[np.int16], NDArray[np.bool_]]":
    """By how much codes and zero points of each group change, as little as can be, and whether they then fit."""
    lowest, highest = grouped.min(axis=2).astype(np.int16), grouped.max(axis=2).astype(np.int16)
    top = np.int16((1 << scheme.bits) - 1)
    if scheme.symmetric:
        shift = np.full_like(zeros, 1 << (scheme.bits - 1)) - zeros
        return shift, (lowest + shift >= 0) & (highest + shift <= top)
    least, most = np.maximum(-lowest, np.int16(min_zero) - zeros), top - np.maximum(highest, zeros)
    return np.maximum(least, np.minimum(most, 0)), least <= most


def _rounded_scales(scales: "NDArray[np.float32]", grid: "Grid") -> "NDArray[np.float32]":
    with np.errstate(over="ignore"):
        return scales.astype(DTYPES[_TYPE_NAMES[grid.scale_type]]).astype(np.float32)


def _reasons(
    q: GroupQuantized,
    source: _Source,
    fits: "NDArray[np.bool_]",
    rounded: "NDArray[np.bool_]",
    grouped: "NDArray[np.uint8]",
    scheme: "LayerScheme",
) -> list[str]:
    """What the new grid does not contain."""
    reasons = []
    in_order = bool((np.diff(q.g_idx) >= 0).all())
    if not source.alike.all():
        reasons.append("groups of other columns" if in_order else "activation order")
    if not fits.all():
        anyhow = _shifts(grouped, source.zeros, replace(scheme, symmetric=False), 0)[1]
        if (~fits & anyhow).any():
            reasons.append("zero points beside the middle" if scheme.symmetric else "zero points of 0")
        if not anyhow.all():
            reasons.append("codes beyond the range")
    if rounded.any():
        reasons.append("scales of another type")
    return reasons
