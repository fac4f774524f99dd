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
from quantrs.huggingface.biased import ALWAYS_BIASED, SWITCHED
from quantrs.huggingface.head_biases import ordered_bias
from quantrs.huggingface.stored_types import TORCH_TYPES

if TYPE_CHECKING:
    from quantrs._native import AssembledTensor, Gguf, TensorInfo
    from quantrs.huggingface.folder import Memory

__all__ = ["Disassembled", "disassemble"]

_COMPUTED = (ROPE_FREQS, ROPE_FACTORS_LONG, ROPE_FACTORS_SHORT)
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
    parts = _Disassembly(gguf, model, format_)
    tensors = parts.tensors()
    special = _special_tokens(gguf)
    config = _config(model, format_) | {"torch_dtype": TORCH_TYPES[dtype]} | special
    assembled = _native.Gguf.assembled(_native.GgufHeader.new(), parts.sources, tensors)
    return Disassembled(assembled, config, _generation_config(gguf, special))


def _config(model: Source, format_: CheckpointFormat) -> dict[str, object]:
    config: dict[str, object] = {"architectures": [format_.model_class], "model_type": format_.model_type}
    for key in format_.keys:
        config |= key.to_config(model)
    for setting in format_.settings:
        config.setdefault(setting.config, setting.values[0])
    if format_.model_type not in ALWAYS_BIASED:
        config |= {key: True for key, names in SWITCHED.items() if any(model.has(f"{numbered(name, 0)}.bias") for name in names)}
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


class _Disassembly:
    """One file read through one format."""

    def __init__(self, gguf: "Gguf", model: Source, format_: CheckpointFormat) -> None:
        self.gguf, self.model, self.rows = gguf, model, format_.by_gguf()
        self.sources: list[str | Memory] = list(gguf.sources)

    def tensors(self) -> "list[AssembledTensor]":
        """Every tensor of the folder, in the order of the file."""
        return [part for tensor in self.gguf.tensors if tensor.name not in _COMPUTED for part in self._taken_apart(tensor)]

    def _taken_apart(self, tensor: "TensorInfo") -> "list[AssembledTensor]":
        stem, _, suffix = tensor.name.rpartition(".")
        template, numbers = template_of(stem + ".")
        weight = self.rows.get(template.removesuffix("."))
        if weight is None or suffix not in ("weight", "bias"):
            raise InputError(f"{tensor.file}: {tensor.name}: checkpoints of {self.model.architecture} have no tensor for it")
        if tensor.type_name is None:
            raise InputError(f"{tensor.file}: {tensor.name}: is of the unknown type {tensor.type_id}, which cannot be decoded")
        i = numbers[0] if numbers else 0
        if "{x}" in weight.huggingface:
            return self._experts(tensor, tensor.type_name, weight, i)
        if weight.vector or suffix == "bias":
            return [self._vector(tensor, tensor.type_name, weight, i, suffix)]
        return [self._matrix(tensor, tensor.type_name, weight, i)]

    def _matrix(self, tensor: "TensorInfo", type_name: str, weight: Weight, i: int) -> "AssembledTensor":
        n_cols, n_rows = tensor.dims[0], math.prod(tensor.dims[1:])
        n_heads = self._heads(tensor, weight, i, n_rows)
        order, dims = "pairs_to_halves" if n_heads else "as_stored", (n_cols, n_rows)
        if weight.transposed:
            order, dims = "transposed", (n_rows, n_cols)
        if weight.transposed and type_name not in TORCH_TYPES:
            part, type_name = self._decoded_part(tensor, type_name, n_cols), "F32"
        else:
            part = _native.Part(self.sources.index(tensor.file), tensor.offset, type_name, dims[1], order, n_heads)
        return _native.AssembledTensor(f"{numbered(weight.huggingface, i)}.weight", dims, type_name, [part])

    def _decoded_part(self, tensor: "TensorInfo", type_name: str, n_cols: int) -> "_native.Part":
        """Blocks lie along the rows, so that only their values can be transposed: they are held in memory, in float32."""
        import numpy as np

        raw = np.frombuffer(_native.Sources(self.gguf).read(tensor), np.uint8)
        values = np.empty(4 * math.prod(tensor.dims), np.uint8)
        _native.convert_rows(raw, type_name, values, "F32", n_cols)
        self.sources.append((f"{tensor.file}: {tensor.name}", values))
        return _native.Part(len(self.sources) - 1, 0, "F32", n_cols, "transposed")

    def _vector(self, tensor: "TensorInfo", type_name: str, weight: Weight, i: int, suffix: str) -> "AssembledTensor":
        n_values = math.prod(tensor.dims)
        if type_name not in TORCH_TYPES:
            raise InputError(f"{tensor.file}: {tensor.name}: is of {type_name}, expected one of {', '.join(TORCH_TYPES)} for a vector")
        n_heads = self._heads(tensor, weight, i, n_values)
        if n_heads:
            raw, label = _native.Sources(self.gguf).read(tensor), f"{tensor.file}: {tensor.name}"
            part = ordered_bias(self.sources, label, raw, type_name, n_heads=n_heads, to_pairs=False)
        else:
            part = _native.Part(self.sources.index(tensor.file), tensor.offset, type_name, 1)
        add = -weight.add if suffix == "weight" else 0.0
        return _native.AssembledTensor(f"{numbered(weight.huggingface, i)}.{suffix}", (n_values,), type_name, [part], add=add)

    def _heads(self, tensor: "TensorInfo", weight: Weight, i: int, n_rows: int) -> int:
        """Heads whose rows have to change places; 0 for a tensor that stays as it is."""
        if weight.order == "as_stored":
            return 0
        n_heads = self.model.of_block("attention.head_count", i)
        if weight.order == "key_heads":
            n_heads = self.model.of_block("attention.head_count_kv", i, n_heads)
        if n_rows % (2 * n_heads):
            raise FormatError(f"{tensor.file}: {tensor.name}: has {n_rows} rows, expected an even number for each of {n_heads} heads")
        return n_heads

    def _experts(self, tensor: "TensorInfo", type_name: str, weight: Weight, i: int) -> "list[AssembledTensor]":
        n_experts = self.model.integer("expert_count")
        n_cols, all_rows = tensor.dims[0], math.prod(tensor.dims[1:])
        if all_rows % n_experts or tensor.nbytes % n_experts:
            raise FormatError(f"{tensor.file}: {tensor.name}: has {all_rows} rows, expected as many for each of {n_experts} experts")
        n_rows, step, source = all_rows // n_experts, tensor.nbytes // n_experts, self.sources.index(tensor.file)
        return [
            _native.AssembledTensor(
                f"{numbered(weight.huggingface, i, x)}.weight",
                (n_cols, n_rows),
                type_name,
                [_native.Part(source, tensor.offset + x * step, type_name, n_rows)],
            )
            for x in range(n_experts)
        ]
