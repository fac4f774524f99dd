"""What each format of folders holds for a layer and says in ``config.json``: the table that a scheme's `format` names."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantrs.formats import awq, compressed_tensors, gptq
from quantrs.formats.compressed_config import WeightScheme
from quantrs.formats.compressed_config import quantization_config as compressed_config
from quantrs.formats.gptq import LayerRule
from quantrs.group_quantized import GroupQuantized
from quantrs.methods.rounding import Float8Rounded
from quantrs.quantizing.dtypes import DTYPES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from quantrs.formats.compressed_config import Format
    from quantrs.methods.rounding import Rounded
    from quantrs.quantizing.schemes import FolderScheme, LayerScheme

__all__ = ["FOLDER_FORMATS", "FolderFormat", "StoredTensors"]

StoredTensors = dict[str, tuple[str, tuple[int, ...]]]
"""Of one layer, by the last part of their names: type as safetensors spells it, and shape."""


@dataclass(frozen=True)
class FolderFormat:
    """One row of the table."""

    stored: "Callable[[FolderScheme, LayerScheme, int, int, str, str], StoredTensors]"
    """Tensors of a layer of ``(out_features, in_features)``; the model's type; the module's name, for an InputError if it does not fit."""
    pack: "Callable[[Rounded, FolderScheme, LayerScheme, str, str], Mapping[str, NDArray[np.generic]]]"
    """Their data, of a rounded layer; the model's type; the module's name."""
    config: "Callable[[FolderScheme, Mapping[str, LayerScheme], Sequence[str], str], dict[str, object]]"
    """``quantization_config``, of the layers by name, the linears that are not quantized, and the method."""


def _gptq_stored(_scheme: "FolderScheme", layer: "LayerScheme", n_out: int, n_in: int, _dtype: str, name: str) -> StoredTensors:
    gptq.check_shape(name, n_out, n_in, bits=layer.bits, group_size=layer.group_size)
    n_groups = layer.n_groups(n_in)
    return {
        "qweight": ("I32", (n_in * layer.bits // 32, n_out)),
        "qzeros": ("I32", (n_groups, n_out * layer.bits // 32)),
        "scales": ("F16", (n_groups, n_out)),
        "g_idx": ("I32", (n_in,)),
    }


def _gptq_pack(
    rounded: "Rounded", scheme: "FolderScheme", _layer: "LayerScheme", _dtype: str, name: str
) -> "Mapping[str, NDArray[np.generic]]":
    return gptq.pack_layer(_integers(rounded), version=_version(scheme), name=name)


def _gptq_config(scheme: "FolderScheme", layers: "Mapping[str, LayerScheme]", unquantized: Sequence[str], method: str) -> dict[str, object]:
    usual = scheme.layer
    rules = {
        name: LayerRule(
            bits=layer.bits,
            group_size=layer.group_size,
            symmetric=layer.symmetric,
            # Readers drop g_idx where the order is not said to be another.
            desc_act=None if layer.desc_act == usual.desc_act else layer.desc_act,
        )
        for name, layer in layers.items()
        if layer != usual
    }
    # What lies outside the blocks, such as the output matrix, is never quantized.
    rules |= {name: LayerRule() for name in unquantized if re.search(r"\.\d+\.", name)}
    return gptq.quantization_config(
        bits=usual.bits,
        group_size=usual.group_size,
        symmetric=usual.symmetric,
        desc_act=usual.desc_act,
        version=_version(scheme),
        group_aware=method == "gptq" and not usual.desc_act,
        lm_head="lm_head" in layers,
        rules=rules,
    )


def _version(scheme: "FolderScheme") -> int:
    return 2 if scheme.format == "gptq_v2" else 1


def _awq_stored(_scheme: "FolderScheme", layer: "LayerScheme", n_out: int, n_in: int, _dtype: str, name: str) -> StoredTensors:
    awq.check_shape(name, n_out, n_in, bits=layer.bits, group_size=layer.group_size)
    n_groups = layer.n_groups(n_in)
    return {"qweight": ("I32", (n_in, n_out // 8)), "qzeros": ("I32", (n_groups, n_out // 8)), "scales": ("F16", (n_groups, n_out))}


def _awq_pack(
    rounded: "Rounded", _scheme: "FolderScheme", _layer: "LayerScheme", _dtype: str, name: str
) -> "Mapping[str, NDArray[np.generic]]":
    return awq.pack_layer(_integers(rounded), name=name)


def _awq_config(
    scheme: "FolderScheme", _layers: "Mapping[str, LayerScheme]", unquantized: Sequence[str], _method: str
) -> dict[str, object]:
    inside = [name for name in unquantized if re.search(r"\.\d+\.", name)]
    return awq.quantization_config(group_size=scheme.layer.group_size, not_converted=inside or None)


def _compressed_stored(scheme: "FolderScheme", layer: "LayerScheme", n_out: int, n_in: int, dtype: str, name: str) -> StoredTensors:
    compressed_tensors.check_shape(name, n_in, bits=layer.bits, group_size=layer.group_size)
    n_groups = layer.n_groups(n_in)
    scale = (dtype, (n_out, n_groups))
    if scheme.activations:
        return {"weight": ("I8" if scheme.activations == "int8" else "F8_E4M3", (n_out, n_in)), "weight_scale": scale}
    stored: StoredTensors = {
        "weight_packed": ("I32", (n_out, -(-n_in * layer.bits // 32))),
        "weight_scale": scale,
        "weight_shape": ("I64", (2,)),
    }
    if not layer.symmetric:
        stored["weight_zero_point"] = ("I32", (-(-n_out * layer.bits // 32), n_groups))
    return stored


def _compressed_pack(
    rounded: "Rounded", scheme: "FolderScheme", layer: "LayerScheme", dtype: str, name: str
) -> "Mapping[str, NDArray[np.generic]]":
    if isinstance(rounded, Float8Rounded):
        return compressed_tensors.pack_fp8(rounded.codes, rounded.scales)
    return compressed_tensors.pack_layer(_integers(rounded), _weight_scheme(scheme, layer), DTYPES[dtype], name=name)


def _compressed_config(
    scheme: "FolderScheme", layers: "Mapping[str, LayerScheme]", unquantized: Sequence[str], _method: str
) -> dict[str, object]:
    return compressed_config({name: _weight_scheme(scheme, layer) for name, layer in layers.items()}, ignore=unquantized)


_STORED_AS: "Mapping[str | None, Format]" = {None: "pack-quantized", "int8": "int-quantized", "fp8": "float-quantized"}


def _weight_scheme(scheme: "FolderScheme", layer: "LayerScheme") -> WeightScheme:
    return WeightScheme(
        format=_STORED_AS[scheme.activations],
        bits=layer.bits,
        symmetric=layer.symmetric,
        group_size=None if layer.group_size == -1 else layer.group_size,
        # Groups stay runs of columns, which is all that its readers still know.
        act_order="weight" if layer.desc_act else None,
    )


def _integers(rounded: "Rounded") -> GroupQuantized:
    if not isinstance(rounded, GroupQuantized):
        raise TypeError(f"found {type(rounded).__name__}, expected integers")
    return rounded


_GPTQ = FolderFormat(_gptq_stored, _gptq_pack, _gptq_config)
FOLDER_FORMATS: Mapping[str, FolderFormat] = {
    "awq": FolderFormat(_awq_stored, _awq_pack, _awq_config),
    "compressed-tensors": FolderFormat(_compressed_stored, _compressed_pack, _compressed_config),
    "gptq": _GPTQ,
    "gptq_v2": _GPTQ,
}
