"""A GGUF file's tensors under the names, and in the order of rows, that Hugging Face has them in, and its ``config.json``."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from quantrs import _native
from quantrs.errors import FormatError, InputError
from quantrs.families import FAMILIES
from quantrs.families.checkpoint_format import CheckpointFormat, Weight, numbered, template_of
from quantrs.families.rope_scaling import ROPE_FACTORS_LONG, ROPE_FACTORS_SHORT, ROPE_FREQS
from quantrs.families.source import Source
from quantrs.huggingface.head_biases import ordered_bias

if TYPE_CHECKING:
    from quantrs._native import AssembledTensor, Gguf, TensorInfo
    from quantrs.huggingface.folder import Memory

__all__ = ["Disassembled", "disassemble"]

_COMPUTED = (ROPE_FREQS, ROPE_FACTORS_LONG, ROPE_FACTORS_SHORT)
_TORCH_TYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_SPECIAL_TOKENS = ("bos", "eos", "pad")
_SAMPLING = (
    ("temperature", "general.sampling.temp"),
    ("top_k", "general.sampling.top_k"),
    ("top_p", "general.sampling.top_p"),
    ("min_p", "general.sampling.min_p"),
    ("repetition_penalty", "general.sampling.penalty_repeat"),
)


class Disassembled(NamedTuple):
    """What a Hugging Face folder holds besides its tokenizer."""

    model: "Gguf"
    """The tensors under Hugging Face's names, ``dims`` row length first; no keys."""
    config: dict[str, object]
    """For ``config.json``."""
    generation_config: dict[str, object]


def disassemble(gguf: "Gguf", *, dtype: str) -> Disassembled:
    """Take a GGUF file apart; no tensor is read but the divisors of frequencies.

    Parameters
    ----------
    gguf : Gguf
        An open file.
    dtype : {"F32", "F16", "BF16"}
        What the matrices will be written as, for ``torch_dtype``. Here they keep their type, but for those that have to be transposed
        or added to and are of blocks.

    Raises
    ------
    InputError
        The architecture, a tensor or a type has no counterpart.
    FormatError
        Metadata is missing or contradicts the tensors.
    """
    architecture = gguf.get("general.architecture")
    family = FAMILIES.get(architecture) if isinstance(architecture, str) else None
    if family is None:
        raise InputError(
            f"{gguf.files[0]}: the architecture {str(architecture)[:60]!r} cannot be written as a Hugging Face folder; "
            f"those that can are {', '.join(FAMILIES)}"
        )
    model = Source(gguf)
    format_ = next((row for row in family.formats if row.fits(model)), family.formats[-1])
    rows = format_.by_gguf()
    sources: list[str | Memory] = list(gguf.files)
    kept = [tensor for tensor in gguf.tensors if tensor.name not in _COMPUTED]
    tensors = [part for tensor in kept for part in _taken_apart(gguf, model, rows, tensor, sources)]
    special = _special_tokens(gguf)
    config = _config(model, format_) | {"torch_dtype": _TORCH_TYPES[dtype]} | special
    assembled = _native.Gguf.assembled(_native.GgufHeader.new(), sources, tensors)
    return Disassembled(assembled, config, _generation_config(gguf, special))


def _config(model: Source, format_: CheckpointFormat) -> dict[str, object]:
    config: dict[str, object] = {"architectures": [format_.model_class], "model_type": format_.model_type}
    for key in format_.keys:
        config |= key.to_config(model)
    for setting in format_.settings:
        config.setdefault(setting.config, setting.values[0])
    return config | {"vocab_size": model.n_vocab, "tie_word_embeddings": not model.has("output.weight"), "use_cache": True}


def _special_tokens(gguf: "Gguf") -> dict[str, object]:
    """Ids by name. Null where there is none: some configurations have defaults outside a small vocabulary."""
    ids = {f"{name}_token_id": gguf.get(f"tokenizer.ggml.{'padding' if name == 'pad' else name}_token_id") for name in _SPECIAL_TOKENS}
    return {name: value if isinstance(value, int) else None for name, value in ids.items()}


def _generation_config(gguf: "Gguf", special: Mapping[str, object]) -> dict[str, object]:
    config: dict[str, object] = {name: value for name, value in special.items() if value is not None}
    for name, key in _SAMPLING:
        value = gguf.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            config |= {"do_sample": True, name: round(value, 6)}
    return config


def _taken_apart(
    gguf: "Gguf", model: Source, rows: Mapping[str, Weight], tensor: "TensorInfo", sources: "list[str | Memory]"
) -> "list[AssembledTensor]":
    stem, _, suffix = tensor.name.rpartition(".")
    template, (i, *_) = _template(stem)
    weight = rows.get(template)
    if weight is None or suffix not in ("weight", "bias"):
        raise InputError(f"{tensor.file}: {tensor.name}: checkpoints of {model.architecture} have no tensor for it")
    if tensor.type_name is None:
        raise InputError(f"{tensor.file}: {tensor.name}: is of the unknown type {tensor.type_id}, which cannot be decoded")
    if "{x}" in weight.huggingface:
        return _experts(model, tensor, tensor.type_name, weight, i, sources.index(tensor.file))
    return [_single(gguf, model, tensor, tensor.type_name, weight, i, suffix, sources)]


def _template(stem: str) -> tuple[str, list[int]]:
    template, numbers = template_of(stem + ".")
    return template.removesuffix("."), numbers or [0]


def _single(
    gguf: "Gguf", model: Source, tensor: "TensorInfo", type_name: str, weight: Weight, i: int, suffix: str, sources: "list[str | Memory]"
) -> "AssembledTensor":
    is_vector = weight.vector or suffix == "bias"
    cols = math.prod(tensor.dims) if is_vector else tensor.dims[0]
    rows = 1 if is_vector else math.prod(tensor.dims[1:])
    dims: tuple[int, ...] = (cols,) if is_vector else (cols, rows)
    order, n_heads, n_ordered = "as_stored", 0, cols if is_vector else rows
    if weight.order != "as_stored":
        order, n_heads = "pairs_to_halves", model.of_block("attention.head_count", i)
        if weight.order == "key_heads":
            n_heads = model.of_block("attention.head_count_kv", i, n_heads)
        if n_ordered % (2 * n_heads):
            raise FormatError(f"{tensor.file}: {tensor.name}: has {n_ordered} rows, expected an even number for each of {n_heads} heads")
    add = -weight.add if suffix == "weight" else 0.0
    target = type_name
    if weight.transposed and suffix == "weight":
        order, dims = "transposed", (rows, cols)
    if (order == "transposed" or add) and type_name not in _TORCH_TYPES:
        target = "F32"  # blocks lie along the rows, so they can be neither transposed nor added to
    if n_heads and is_vector:
        raw, label = _native.Sources(gguf).read(tensor), f"{tensor.file}: {tensor.name}"
        part = ordered_bias(sources, label, raw, type_name, n_heads=n_heads, to_pairs=False)
    else:
        part = _native.Part(sources.index(tensor.file), tensor.offset, type_name, math.prod(dims[1:]), order, n_heads)
    return _native.AssembledTensor(f"{numbered(weight.huggingface, i)}.{suffix}", dims, target, [part], add=add)


def _experts(model: Source, tensor: "TensorInfo", type_name: str, weight: Weight, i: int, source: int) -> "list[AssembledTensor]":
    n_experts = model.integer("expert_count")
    cols, all_rows = tensor.dims[0], math.prod(tensor.dims[1:])
    if all_rows % n_experts or tensor.nbytes % n_experts:
        raise FormatError(f"{tensor.file}: {tensor.name}: has {all_rows} rows, expected as many for each of {n_experts} experts")
    rows, step = all_rows // n_experts, tensor.nbytes // n_experts
    return [
        _native.AssembledTensor(
            f"{numbered(weight.huggingface, i, x)}.weight",
            (cols, rows),
            type_name,
            [_native.Part(source, tensor.offset + x * step, type_name, rows)],
        )
        for x in range(n_experts)
    ]
