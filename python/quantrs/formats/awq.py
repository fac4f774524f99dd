"""AWQ checkpoints in the GEMM layout, as AutoAWQ writes them.

The tensors of a linear layer are transposed against its weight and packed along the outputs: ``qweight`` int32 ``[in, out / 8]``,
``qzeros`` int32 ``[n_groups, out / 8]``, ``scales`` float16 ``[n_groups, out]``. Always 4 bits, zero points as they are, no ``g_idx``.
The order of outputs within a word is in `quantrs.formats.packing`.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from quantrs.errors import FormatError, InputError
from quantrs.formats.layer import CheckpointFormat, LayerTensors, QuantizedFolder, QuantizedLayer, modules_with
from quantrs.formats.packing import pack_awq, unpack_awq
from quantrs.formats.scales import checked_scales

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from quantrs.group_quantized import GroupQuantized
    from quantrs.huggingface.config import Config
    from quantrs.huggingface.folder import Folder, HfTensor

__all__ = ["AWQ", "check_shape", "find_layers", "pack_layer", "quantization_config", "unpack_layer"]

_MAX_GROUP_SIZE = 1 << 20


def check_shape(name: str, out_features: int, in_features: int, *, bits: int, group_size: int) -> None:
    """Refuse a layer that the format cannot hold.

    Raises
    ------
    InputError
        Not 4 bits, outputs do not fill whole words, or groups (-1: one of all input channels) do not divide the input.
    """
    if bits != 4:
        raise InputError(f"{name}: AWQ files hold 4 bits, not {bits}; GPTQ and compressed-tensors files have other widths")
    if out_features % 8:
        raise InputError(f"{name}: out_features {out_features} is not a multiple of 8, which AWQ packs in a word; skip this layer")
    if group_size != -1 and (group_size < 1 or in_features % group_size):
        raise InputError(f"{name}: in_features {in_features} is not a multiple of the group size {group_size}; take another, or -1")


def pack_layer(q: "GroupQuantized", *, name: str = "weight") -> "dict[str, NDArray[np.generic]]":
    """Tensors of one layer by the last part of their names: ``qweight``, ``qzeros``, ``scales``. Scales are rounded to float16.

    Raises
    ------
    InputError
        As `check_shape`, groups are not runs of channels (activation order), a code is beyond 15 or a scale beyond float16; `name` begins
        the message.
    """
    check_shape(name, *q.shape, bits=q.bits, group_size=q.group_size)
    if not q.in_order:
        raise InputError(f"{name}: its groups are in activation order, which AWQ files cannot hold; quantize without it, or write GPTQ")
    if max(int(q.codes.max(initial=0)), int(q.zeros.max(initial=0))) > 15:
        raise InputError(f"{name}: a code or zero point is larger than 15, which 4 bits cannot hold")
    scales = checked_scales(q.scales, np.dtype(np.float16), name)
    return {"qweight": pack_awq(q.codes), "qzeros": pack_awq(q.zeros), "scales": np.ascontiguousarray(scales.T)}


def quantization_config(*, group_size: int, not_converted: Sequence[str] | None = None) -> dict[str, object]:
    """``quantization_config`` of ``config.json``, key by key as AutoAWQ writes it.

    `not_converted` are names, or parts of names, of linear layers inside the blocks that stay as they were. What lies outside the blocks,
    such as the output head, always does.
    """
    return {
        "bits": 4,
        "group_size": group_size,
        "modules_to_not_convert": None if not_converted is None else list(not_converted),
        "quant_method": "awq",
        "version": "gemm",
        "zero_point": True,
    }


def find_layers(config: "Config", folder: "Folder") -> QuantizedFolder:
    """Every layer that has a ``qweight``; `config` is ``quantization_config``, or the ``quant_config.json`` of old files.

    Raises
    ------
    FormatError
        A value or a tensor is missing or does not fit the others.
    InputError
        The layout is another one, such as gemv.
    """
    version = config.text("version", "checkpoint_format", "format", default="gemm")
    if version.lower() != "gemm":
        raise InputError(f"{config.path}: AWQ in the layout {version!r} cannot be read; expected 'gemm'")
    if config.integer("bits", "w_bit") != 4:
        raise config.wrong("bits", config.get("bits", "w_bit"), "4")
    group_size = config.integer("group_size", "q_group_size", at_least=-1, at_most=_MAX_GROUP_SIZE)
    symmetric = not config.flag("zero_point", default=True)
    names = modules_with(folder, ["qweight"])
    if not names:
        raise FormatError(f"{config.path}: says that the model is quantized with awq, but no tensor is called *.qweight")
    return QuantizedFolder("awq", {name: _find_layer(LayerTensors(folder, name), group_size, symmetric=symmetric) for name in names})


def _find_layer(tensors: LayerTensors, group_size: int, *, symmetric: bool) -> QuantizedLayer:
    qweight = tensors.take("qweight", ("I32",), (None, None))
    n_in, n_words = qweight.shape
    group_size = n_in if group_size < 1 else group_size
    if n_in % group_size:
        raise tensors.wrong("qweight", f"a multiple of {group_size} rows, the group size of config.json")
    n_groups = n_in // group_size
    zeros = tensors.maybe("qzeros")
    if zeros is not None or not symmetric:
        zeros = tensors.take("qzeros", ("I32",), (n_groups, n_words))
    return QuantizedLayer(
        name=tensors.name,
        kind="awq",
        out_features=8 * n_words,
        in_features=n_in,
        bits=4,
        group_size=group_size,
        symmetric=symmetric,
        codes=qweight,
        scales=tensors.take("scales", ("F16", "BF16", "F32"), (n_groups, 8 * n_words)),
        zeros=zeros,
    )


def unpack_layer(layer: QuantizedLayer, read: "Callable[[HfTensor], NDArray[np.generic]]") -> "GroupQuantized":
    """The whole layer; `read` gives the values of a tensor."""
    from quantrs.group_quantized import GroupQuantized

    shape = (layer.out_features, layer.n_groups)
    return GroupQuantized(
        codes=unpack_awq(read(layer.codes).astype(np.int32, copy=False)),
        scales=np.ascontiguousarray(read(layer.scales).astype(np.float32).T),
        zeros=np.full(shape, 8, np.uint8) if layer.zeros is None else unpack_awq(read(layer.zeros).astype(np.int32, copy=False)),
        g_idx=np.arange(layer.in_features, dtype=np.int32) // np.int32(layer.group_size),
        bits=4,
        group_size=layer.group_size,
        symmetric=layer.symmetric,
    )


AWQ = CheckpointFormat(method="awq", find_layers=find_layers, unpack_layer=unpack_layer)
