"""GPTQ checkpoints as gptqmodel (and AutoGPTQ before it) writes them.

The tensors of a linear layer are transposed against its weight: ``qweight`` int32 ``[in * bits / 32, out]``, ``qzeros`` int32
``[n_groups, out * bits / 32]``, ``scales`` float16 ``[n_groups, out]``, ``g_idx`` int32 ``[in]``; the order of bits is in
`quantrs.formats.packing`. Version 1 (``checkpoint_format: "gptq"``, what nearly everyone writes) stores zero points minus one, version 2
as they are.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from quantrs import _native
from quantrs.errors import FormatError, InputError
from quantrs.formats.g_idx import read_g_idx
from quantrs.formats.layer import CheckpointFormat, LayerTensors, QuantizedFolder, QuantizedLayer, group_size_of, modules_with
from quantrs.formats.packing import pack_down, pack_gptq_zeros, unpack_down, unpack_gptq_zeros
from quantrs.formats.scales import checked_scales

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from quantrs.group_quantized import GroupQuantized
    from quantrs.huggingface.config import Config
    from quantrs.huggingface.folder import Folder, HfTensor

__all__ = ["GPTQ", "LayerRule", "check_shape", "find_layers", "pack_layer", "quantization_config", "unpack_layer"]

_BITS = (2, 3, 4, 8)
_MAX_GROUP_SIZE = 1 << 20
_MAX_GROUP_SIZES = 64  # each layer is compared with all
_VERSIONS = {"gptq": 1, "gptq_v2": 2}
_NEURAL_COMPRESSOR = "scale_bf16_to_fp8"
"""A tensor that Intel Neural Compressor alone writes; its zero points wrap instead of borrowing."""


def check_shape(name: str, out_features: int, in_features: int, *, bits: int, group_size: int) -> None:
    """Refuse a layer that the format cannot hold.

    Raises
    ------
    InputError
        Bits are not 2, 3, 4 or 8, codes do not fill whole words, or groups (-1: one of all input channels) do not divide the input.
    """
    if bits not in _BITS:
        raise InputError(f"{name}: GPTQ files hold 2, 3, 4 or 8 bits, not {bits}")
    for what, n in (("in_features", in_features), ("out_features", out_features)):
        per_words = 32 if bits == 3 else 32 // bits
        if n % per_words:
            raise InputError(f"{name}: {what} {n} is not a multiple of {per_words}, which {bits}-bit GPTQ packs together; skip this layer")
    if group_size != -1 and (group_size < 1 or in_features % group_size):
        raise InputError(f"{name}: in_features {in_features} is not a multiple of the group size {group_size}; take another, or -1")


def pack_layer(q: "GroupQuantized", *, version: int = 1, name: str = "weight") -> "dict[str, NDArray[np.generic]]":
    """Tensors of one layer by the last part of their names: ``qweight``, ``qzeros``, ``scales``, ``g_idx``.

    Scales are rounded to float16. A zero point of 0 in version 1 is written as gptqmodel does, by borrowing from its neighbour, which
    some readers get wrong: quantize with zero points of at least 1, or write version 2.

    Raises
    ------
    InputError
        As `check_shape`, or a scale is beyond float16; `name` begins the message.
    """
    n_out, n_in = q.codes.shape
    check_shape(name, n_out, n_in, bits=q.bits, group_size=-1)
    scales = checked_scales(q.scales, np.dtype(np.float16), name)
    return {
        "qweight": pack_down(q.codes, q.bits),
        "qzeros": pack_gptq_zeros(q.zeros, q.bits, version=version),
        "scales": np.ascontiguousarray(scales.T),
        "g_idx": q.g_idx.astype(np.int32),
    }


@dataclass(frozen=True, kw_only=True)
class LayerRule:
    """A layer that differs from the rest, or (bits None) that is not quantized."""

    bits: int | None = None
    group_size: int = -1
    symmetric: bool = True
    desc_act: bool | None = None
    """None: as the rest."""


def quantization_config(
    *,
    bits: int,
    group_size: int,
    symmetric: bool,
    desc_act: bool,
    version: int = 1,
    damp_percent: float = 0.01,
    static_groups: bool = False,
    true_sequential: bool = True,
    group_aware: bool = False,
    mse: float = 0.0,
    lm_head: bool = False,
    rules: Mapping[str, LayerRule] | None = None,
) -> dict[str, object]:
    """``quantization_config`` of ``config.json``, and all of ``quantize_config.json``, which older loaders read.

    `rules` are by module name. gptqmodel loads version 1 without symmetry only if its own name is among the tools that made the file,
    because zero points of older tools cannot be trusted; ours follow its rule, so its name stands beside ours there.
    """
    checkpoint_format = "gptq" if version == 1 else "gptq_v2"
    tools = [f"quantrs:{_native.__version__}"] + (["gptqmodel:7.7.0"] if version == 1 and not symmetric else [])
    config: dict[str, object] = {
        "bits": bits,
        "checkpoint_format": checkpoint_format,
        "desc_act": desc_act,
        "format": checkpoint_format,
        "group_size": group_size,
        "lm_head": lm_head,
        "meta": {
            "act_group_aware": group_aware,
            "damp_auto_increment": 0.01,
            "damp_percent": damp_percent,
            "mse": mse,
            "quantizer": tools,
            "static_groups": static_groups,
            "true_sequential": true_sequential,
        },
        "method": "gptq",
        "pack_dtype": "int32",
        "quant_method": "gptq",
        "sym": symmetric,
    }
    if rules:
        config["dynamic"] = dict(_dynamic(rules))
    return config


def _dynamic(rules: Mapping[str, LayerRule]) -> "Iterable[tuple[str, dict[str, object]]]":
    """gptqmodel's overrides: the first regular expression that matches from the beginning of a module's name decides."""
    for name, rule in rules.items():
        exact = f"^{re.escape(name)}$"
        if rule.bits is None:
            yield f"-:{exact}", {}
        else:
            order = {} if rule.desc_act is None else {"desc_act": rule.desc_act}
            yield f"+:{exact}", {"bits": rule.bits, "group_size": rule.group_size, "sym": rule.symmetric, **order}


@dataclass(frozen=True)
class _Settings:
    version: int
    symmetric: bool
    bits: tuple[int, ...]
    """The first is the rule, the others are of ``dynamic``."""
    group_sizes: tuple[int, ...]


def find_layers(config: "Config", folder: "Folder") -> QuantizedFolder:
    """Every layer that has a ``qweight``; `config` is ``quantization_config``.

    Names decide what is quantized and shapes decide how, so that the regular expressions of ``dynamic`` need not be run: what they say
    has to agree.

    Raises
    ------
    FormatError
        A value or a tensor is missing or does not fit the others.
    InputError
        The layout is another one, such as marlin.
    """
    settings = _read_settings(config)
    layers = {name: _find_layer(LayerTensors(folder, name), settings) for name in modules_with(folder, ["qweight"])}
    if not layers:
        raise FormatError(f"{config.path}: says that the model is quantized with gptq, but no tensor is called *.qweight")
    return QuantizedFolder("gptq", layers)


def _read_settings(config: "Config") -> _Settings:
    checkpoint_format = config.text("checkpoint_format", "format", default="gptq")
    if checkpoint_format not in _VERSIONS or config.flag("is_marlin_format"):
        found = checkpoint_format if checkpoint_format not in _VERSIONS else "marlin"
        raise InputError(f"{config.path}: GPTQ in the layout {found!r} cannot be read; expected 'gptq' or 'gptq_v2'")
    if config.text("pack_dtype", default="int32").removeprefix("torch.") != "int32":
        raise InputError(f"{config.path}: codes are packed in {config.text('pack_dtype')!r}; only 'int32' can be read")
    bits = [_read_bits(config)]
    group_sizes = [config.integer("group_size", default=-1, at_least=-1, at_most=_MAX_GROUP_SIZE)]
    dynamic = config.part("dynamic")
    for pattern in dynamic.values if dynamic else ():
        rule = None if dynamic is None or not dynamic.values[pattern] else dynamic.part(pattern)
        if rule is not None and not pattern.startswith("-:"):
            bits += [_read_bits(rule)] if rule.get("bits") is not None else []
            group_sizes.append(rule.integer("group_size", default=group_sizes[0], at_least=-1, at_most=_MAX_GROUP_SIZE))
    if len(set(group_sizes)) > _MAX_GROUP_SIZES:
        raise config.wrong("dynamic", f"{len(set(group_sizes))} different group sizes", f"at most {_MAX_GROUP_SIZES}")
    return _Settings(
        _VERSIONS[checkpoint_format], config.flag("sym", default=True), tuple(dict.fromkeys(bits)), tuple(dict.fromkeys(group_sizes))
    )


def _read_bits(config: "Config") -> int:
    bits = config.integer("bits")
    if bits not in _BITS:
        raise config.wrong("bits", bits, "2, 3, 4 or 8")
    return bits


def _find_layer(tensors: LayerTensors, settings: _Settings) -> QuantizedLayer:
    scales = tensors.take("scales", ("F16", "BF16", "F32"), (None, None))
    n_groups, n_out = scales.shape
    qweight = tensors.take("qweight", ("I32",), (None, n_out))
    qzeros = tensors.take("qzeros", ("I32",), (n_groups, None))
    bits = next((bits for bits in settings.bits if _words(n_out, bits) == qzeros.shape[1]), None)
    if bits is None and 3 in settings.bits and qzeros.shape[1] == -(-n_out // 10):
        raise InputError(
            f"{tensors.folder.path}: {tensors.name}.qzeros holds ten codes of 3 bits in each word, as Intel Neural Compressor packs them, "
            "not 32 in three words as GPTQ does; that cannot be read: quantize to 4 bits there, or use gptqmodel"
        )
    if bits is None:
        fitting = " or ".join(f"[{n_groups}, {_words(n_out, bits)}] for {bits} bits" for bits in settings.bits)
        raise tensors.wrong("qzeros", f"I32 of shape {fitting}, as config.json says")
    n_in = qweight.shape[0] * 32 // bits
    if n_in * bits != qweight.shape[0] * 32:
        raise tensors.wrong("qweight", "three rows for every 32 input channels of 3 bits")
    group_size = group_size_of(n_groups, n_in, settings.group_sizes)
    if group_size is None:
        sizes = ", ".join(map(str, settings.group_sizes))
        raise tensors.wrong("scales", f"one row for every group of {n_in} input channels; config.json names groups of {sizes}")
    g_idx = tensors.take("g_idx", ("I32",), (n_in,)) if tensors.maybe("g_idx") is not None else None
    return QuantizedLayer(
        name=tensors.name,
        kind="gptq",
        out_features=n_out,
        in_features=n_in,
        bits=bits,
        group_size=group_size,
        symmetric=settings.symmetric,
        codes=qweight,
        scales=scales,
        zeros=qzeros,
        g_idx=g_idx,
        zero_offset=1 if settings.version == 1 else 0,
        zeros_wrap=bits == 3 or tensors.maybe(_NEURAL_COMPRESSOR) is not None,
        others=tensors.names([_NEURAL_COMPRESSOR]),
    )


def _words(n_out: int, bits: int) -> int | None:
    """Words that the zero points of a group take; 3-bit layers have whole sets of 32 outputs."""
    return None if bits == 3 and n_out % 32 else -(-n_out * bits // 32)


def unpack_layer(layer: QuantizedLayer, read: "Callable[[HfTensor], NDArray[np.generic]]") -> "GroupQuantized":
    """The whole layer; `read` gives the values of a tensor.

    Raises
    ------
    FormatError
        A value of ``g_idx`` is no group.
    """
    from quantrs.group_quantized import GroupQuantized

    if layer.zeros is None:
        raise ValueError("a GPTQ layer has zero points")
    version, words = 1 if layer.zero_offset else 2, read(layer.zeros).astype(np.int32, copy=False)
    return GroupQuantized(
        codes=unpack_down(read(layer.codes).astype(np.int32, copy=False), layer.bits, layer.in_features),
        scales=np.ascontiguousarray(read(layer.scales).astype(np.float32).T),
        zeros=unpack_gptq_zeros(words, layer.bits, layer.out_features, version=version, wrap=layer.zeros_wrap),
        g_idx=read_g_idx(layer, read),
        bits=layer.bits,
        group_size=layer.group_size,
        symmetric=layer.symmetric,
    )


GPTQ = CheckpointFormat(method="gptq", find_layers=find_layers, unpack_layer=unpack_layer)
