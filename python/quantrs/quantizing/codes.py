"""The codes of a model that is quantized already, layer by layer, whatever holds them."""

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from quantrs import _native
from quantrs.errors import InputError
from quantrs.formats import FORMATS, find_quantized
from quantrs.formats.layer import QuantizedFolder, QuantizedLayer, read_array
from quantrs.group_quantized import GroupQuantized
from quantrs.huggingface.folder import Folder
from quantrs.quantizing.ggml_groups import BLOCK_BITS, groups_of_blocks
from quantrs.quantizing.linears import Linear, find_linears, stored_tensors
from quantrs.quantizing.source import HfModel
from quantrs.schemes import is_quantized

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from quantrs.quantizing.schemes import LayerScheme

__all__ = ["CodeSource", "open_codes"]

Grouped = GroupQuantized | None
"""None for what is on no grid of integers: its values are rounded."""


@dataclass(frozen=True)
class CodeSource:
    """The linears that are quantized, by the names of their modules in the folder to be."""

    names: Collection[str]
    read: Callable[[str], Grouped]
    """A whole layer."""
    kept_scales: "Callable[[str, LayerScheme], NDArray[np.float32] | None]"
    """Those of a layer that a scheme can keep, as far as it is known before codes are read; None where any type will do."""


def open_codes(model: HfModel) -> CodeSource:
    """Find what is quantized; no layer is read.

    Raises
    ------
    InputError
        No linear is.
    FormatError, FileError
        As `quantrs.formats.find_quantized`.
    """
    folder = Folder.open(Path(model.path)) if os.path.isdir(model.path) else None  # noqa: PTH112 - a Path raises for names that are too long
    found = None if folder is None else find_quantized(folder)
    if folder is not None and found is not None:
        return _of_folder(folder, found)
    linears = {} if folder is not None else {linear.name: linear for linear in find_linears(model, stored_tensors(model))}
    blocks = {name: linear for name, linear in linears.items() if is_quantized(linear.tensor.type_name or "")}
    if not blocks:
        raise InputError(
            f"{model.path}: its linears are not quantized, so there are no codes to take over; use quantize, which chooses them"
        )
    return _of_gguf(model, blocks)


def _of_folder(folder: Folder, found: QuantizedFolder) -> CodeSource:
    def read(name: str) -> Grouped:
        layer = FORMATS[found.method].unpack_layer(found.layers[name], lambda tensor: read_array(folder, tensor))
        return layer if isinstance(layer, GroupQuantized) else None

    def kept_scales(name: str, scheme: "LayerScheme") -> "NDArray[np.float32] | None":
        layer = found.layers[name]
        if not _is_grouped(layer) or (scheme.symmetric and not layer.symmetric):
            return None
        scales = read_array(folder, layer.scales).astype(np.float32)
        by_row = scales.T if layer.kind in ("gptq", "awq") else scales
        return by_row if _are_kept(by_row, layer, scheme) else None

    return CodeSource(found.layers.keys(), read, kept_scales)


def _is_grouped(layer: QuantizedLayer) -> bool:
    return layer.kind not in ("fp8", "nvfp4", "mxfp4") and layer.block_rows == 1


def _are_kept(scales: "NDArray[np.float32]", layer: QuantizedLayer, scheme: "LayerScheme") -> bool:
    """Whether the new groups divide the old ones, or put together such as have the same scales."""
    size = layer.in_features if scheme.group_size == -1 else scheme.group_size
    if size % layer.group_size or layer.in_features % size:
        return layer.group_size % size == 0
    together = scales.reshape(layer.out_features, -1, size // layer.group_size)
    return bool((together == together[..., :1]).all())


def _of_gguf(model: HfModel, linears: Mapping[str, Linear]) -> CodeSource:
    sources = _native.Sources(model.tensors)

    def read(name: str) -> Grouped:
        linear = linears[name]
        type_name = linear.tensor.type_name or ""
        if type_name not in BLOCK_BITS:
            return None
        raw = np.frombuffer(sources.read(linear.tensor), np.uint8)
        return groups_of_blocks(raw, type_name, (linear.out_features, linear.in_features))

    return CodeSource(linears.keys(), read, lambda _name, _scheme: None)
