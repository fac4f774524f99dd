"""From the weights of a layer to codes on the grid of its scheme: to the nearest, or by GPTQ."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from quantrs.formats.float8 import quantize_fp8
from quantrs.gptq_solver import gptq
from quantrs.group_quantized import quantize_groups
from quantrs.quantizing.dtypes import DTYPES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from quantrs.group_quantized import Rule, ScaleType
    from quantrs.quantizing.block_work import BlockWork
    from quantrs.quantizing.linears import Place
    from quantrs.quantizing.plan import PlannedLayer
    from quantrs.quantizing.schemes import FolderScheme, LayerScheme

__all__ = ["Float8Rounded", "Grid", "Rounded", "Rounding", "grid_of", "round_by_gptq", "round_to_nearest", "rounded_to_nearest"]


class Rounded(Protocol):
    """Small integers or floats, and their scales."""

    def dequantize(self) -> "NDArray[np.float32]":
        """What they stand for, float32 ``[out_features, in_features]``."""
        ...


Rounding = Callable[["BlockWork", "Place", "PlannedLayer"], Rounded]


@dataclass(frozen=True, eq=False)
class Float8Rounded:
    """Weights in float8 with a scale per row."""

    codes: "NDArray[np.generic]"
    """``float8_e4m3fn`` ``[out_features, in_features]``."""
    scales: "NDArray[np.generic]"
    """Of the model's type, ``[out_features, 1]``."""

    def dequantize(self) -> "NDArray[np.float32]":
        """Codes times scales, float32."""
        return self.codes.astype(np.float32) * self.scales.astype(np.float32)


class Grid(NamedTuple):
    """How a format's tools go from a group's ends to a scale, and what can be stored."""

    rule: "Rule"
    scale_type: "ScaleType"
    min_zero: int


_SCALE_TYPES: "dict[str, ScaleType]" = {"F32": "f32", "F16": "f16", "BF16": "bf16"}


def grid_of(scheme: "FolderScheme", dtype: str) -> Grid:
    """The grid of a folder's integers; `dtype` is that of the rest of the model."""
    if scheme.format == "compressed-tensors":
        return Grid("minmax", _SCALE_TYPES[dtype], 0)
    if scheme.format == "awq":
        return Grid("awq", "f16", 0)
    # Version 1 stores zero points less one, and many readers take a zero point of 0 wrong.
    return Grid("gptq-wide", "f16", 0 if scheme.format == "gptq_v2" else 1)


def rounded_to_nearest(
    weights: "NDArray[np.float32]", scheme: "FolderScheme", layer: "LayerScheme", *, dtype: str, mse: float | None, threads: int | None
) -> Rounded:
    """Round weights ``[out_features, in_features]`` to the nearest values of their grid.

    Raises
    ------
    InputError
        A weight is infinite or NaN.
    """
    if layer.value_type == "float":
        return Float8Rounded(*quantize_fp8(weights.astype(DTYPES[dtype])))
    rule, scale_type, min_zero = grid_of(scheme, dtype)
    return quantize_groups(
        weights,
        bits=layer.bits,
        group_size=layer.group_size,
        symmetric=layer.symmetric,
        rule=rule,
        scale_type=scale_type,
        mse=mse,
        min_zero=0 if layer.symmetric else min_zero,
        threads=threads,
    )


def round_to_nearest(work: "BlockWork", place: "Place", layer: "PlannedLayer") -> Rounded:
    """`rounded_to_nearest`, of a block's weights as transforms have left them."""
    return rounded_to_nearest(
        work.values(place), work.plan.scheme, layer.scheme, dtype=work.plan.dtype, mse=work.options.mse, threads=work.threads
    )


def round_by_gptq(work: "BlockWork", place: "Place", layer: "PlannedLayer") -> Rounded:
    """Round column by column, so that the outputs for the calibration's inputs change least."""
    if layer.scheme.value_type == "float":
        return round_to_nearest(work, place, layer)
    rule, scale_type, min_zero = grid_of(work.plan.scheme, work.plan.dtype)
    return gptq(
        work.values(place),
        work.hessian(place),
        bits=layer.scheme.bits,
        group_size=layer.scheme.group_size,
        symmetric=layer.scheme.symmetric,
        desc_act=layer.scheme.desc_act,
        damp_percent=work.options.damp_percent,
        mse=work.options.mse,
        static_groups=layer.scheme.desc_act and work.plan.scheme.format == "compressed-tensors",
        group_aware=not layer.scheme.desc_act,
        rule=rule,
        scale_type=scale_type,
        min_zero=0 if layer.scheme.symmetric else min_zero,
        threads=work.threads,
    )
