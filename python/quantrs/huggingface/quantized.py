"""Quantized folders seen as any other: one tensor ``P.weight`` in place of the codes, scales and zero points of each linear P.

What lies where is told by the checkpoint format's own module in `quantrs.formats`; here each description becomes rows that the native
module decodes when they are read.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from quantrs import _native
from quantrs.errors import FormatError
from quantrs.huggingface.folder import Folder, HfTensor, PackedRows

if TYPE_CHECKING:
    from quantrs.formats.layer import Kind, QuantizedLayer

__all__ = ["with_linears"]

_CODES: "Mapping[Kind, str]" = {
    "gptq": "columns",
    "awq": "awq",
    "packed": "rows",
    "int8": "i8",
    "fp8": "f8_e4m3",
    "nvfp4": "f4_e2m1",
    "mxfp4": "f4_e2m1",
}
_ZEROS: "Mapping[Kind, str]" = {"gptq": "columns", "awq": "awq", "packed": "rows", "int8": "i8"}


@dataclass(frozen=True)
class _Linear(PackedRows):
    """A described layer."""

    layer: "QuantizedLayer"

    def part(self, order: str, n_heads: int) -> "_native.Part":
        layer, zeros = self.layer, "middle"
        if layer.zeros is not None:
            zeros = "i8" if layer.zeros.dtype == "I8" else _ZEROS[layer.kind]
            if layer.zero_offset:
                zeros += "_wrapped" if layer.zeros_wrap else "_borrowed"
        return _native.Part.packed(
            _CODES[layer.kind],
            _place(layer.codes),
            layer.out_features,
            bits=layer.bits,
            scales=_place(layer.scales),
            scale_type="F8_E8M0" if layer.scales.dtype == "U8" else layer.scales.dtype,
            scales_transposed=layer.kind in ("gptq", "awq"),
            group_size=layer.group_size,
            group_rows=layer.block_rows,
            divisor=None if layer.global_scale is None else _place(layer.global_scale),
            zeros=zeros,
            zeros_at=None if layer.zeros is None else _place(layer.zeros),
            g_idx=None if layer.g_idx is None else _place(layer.g_idx),
            order=order,
            n_heads=n_heads,
        )


def with_linears(folder: Folder) -> Folder:
    """The folder with a tensor ``P.weight`` of shape ``(out_features, in_features)`` for every quantized linear P.

    Its values are exact in float32. Where a block type of GGUF holds the very same values, `PackedRows.types` names it: for that scales
    and zero points are read, codes are not. A folder that is not quantized comes back as it is.

    Raises
    ------
    InputError
        The method is not read.
    FormatError
        Configuration and tensors contradict each other, or a scale or group makes no sense.
    FileError
        A file cannot be read.
    """
    from quantrs.formats import find_quantized  # formats know folders
    from quantrs.huggingface.zero_biases import superfluous_biases

    found = find_quantized(folder)
    if found is None:
        return folder
    linears = _linears(folder, found.layers)
    members = {name: layer.name for layer in found.layers.values() for name in layer.tensors}
    weights = {linear.name for linear in linears.values()}
    left_out = {*found.others} | superfluous_biases(folder, [layer.name for layer in found.layers.values() if layer.kind == "gptq"])
    tensors: dict[str, HfTensor] = {}
    for name, tensor in folder.tensors.items():
        if name in members:
            linear = linears[members[name]]
            tensors.setdefault(linear.name, linear)
        elif name in weights:
            raise FormatError(f"{folder.path}: {name} is there beside the packed tensors of the same linear; expected one of the two")
        elif name not in left_out:
            tensors[name] = tensor
    return dataclasses.replace(folder, tensors=tensors)


def _linears(folder: Folder, layers: "Mapping[str, QuantizedLayer]") -> dict[str, HfTensor]:
    bare = {layer.name: _Linear((), layer) for layer in layers.values()}
    probes = [
        _native.AssembledTensor(
            f"{name}.weight", (linear.layer.in_features, linear.layer.out_features), "F32", [linear.part("as_stored", 0)]
        )
        for name, linear in bare.items()
    ]
    # Checks that every piece lies within its file, before anything is read.
    model = _native.Gguf.assembled(_native.GgufHeader.new(), list(folder.sources), probes)
    linears = {}
    for (name, linear), types in zip(bare.items(), model.containing_types(), strict=True):
        layer = linear.layer
        shape = (layer.out_features, layer.in_features)
        packed = dataclasses.replace(linear, types=tuple(types))
        linears[name] = HfTensor(f"{name}.weight", "F32", shape, layer.codes.source, layer.codes.offset, 4 * prod(shape), packed)
    return linears


def _place(tensor: HfTensor) -> tuple[int, int]:
    return tensor.source, tensor.offset
