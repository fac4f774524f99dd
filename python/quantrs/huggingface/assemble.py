"""A Hugging Face folder with the face of a GGUF file: header in memory, rows where they lie in the safetensors files."""

import math
import struct
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from quantrs import _native
from quantrs.errors import FormatError, InputError
from quantrs.families import FAMILIES
from quantrs.families.checkpoint_format import CheckpointFormat, Entry, Value, Weight, numbered, template_of
from quantrs.families.rope_scaling import factor_tensors
from quantrs.huggingface.config import Config
from quantrs.huggingface.folder import Folder, HfTensor, Memory, read_bytes_of
from quantrs.huggingface.general_keys import general_keys
from quantrs.huggingface.generic import generic_assembly
from quantrs.huggingface.head_biases import ordered_bias
from quantrs.huggingface.quantized import with_linears
from quantrs.huggingface.stored_types import carried_type, check_float
from quantrs.schemes import FILE_TYPES, is_quantized

if TYPE_CHECKING:
    from quantrs._native import AssembledTensor, Gguf

__all__ = ["GENERIC", "assemble", "format_of"]

GENERIC = "generic"
"""The architecture of a checkpoint whose tensors keep their names."""

_BUFFERS = (".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias")
_ELSEWHERE = ("vision_", "audio_", "visual.", "vision.", "audio.", "projector.", "image_newline", "patch_embed")
_ALWAYS_F32 = ("blk.{i}.ffn_gate_inp", "blk.{i}.ffn_gate_inp_shexp", "position_embd")
_FILE_TYPE_IDS = {"F32": 0, "F16": 1, "BF16": 32}


def assemble(
    folder: Folder, *, pre: str | None = None, arch: str | None = None, with_tokenizer: bool = True, to_run: bool = False
) -> "Gguf":
    """The folder as a GGUF file that exists only in memory.

    Matrices keep their type (float8 becomes bfloat16); vectors, and what the reference converter always keeps exact, are float32.

    Parameters
    ----------
    folder : Folder
        An open folder.
    pre : str, optional
        Name of the pre-tokenizer, where it cannot be told from the tokenizer.
    arch : str, optional
        ``generic``: all tensors under their own names, no hyperparameters, no tokenizer.
    with_tokenizer : bool
        False leaves it out, for models that are looked at and not run.
    to_run : bool
        It will be run, not written: its ``tokenizer.json`` is used as it is and needs no name in GGUF's terms.

    Raises
    ------
    InputError
        A model, a type or a variant that GGUF does not know, or `arch` is unknown.
    FormatError
        Configuration and tensors contradict each other.
    """
    if arch is not None and arch != GENERIC:
        raise InputError(f"--arch {arch}: expected {GENERIC}; every other architecture is told by config.json")
    folder = with_linears(folder)
    if arch == GENERIC:
        return generic_assembly(folder)
    from quantrs.tokenization.to_gguf import tokenizer_keys

    architecture, format_ = format_of(folder.config)
    parts = _Assembly(folder, format_)
    entries = parts.entries()
    tensors = parts.tensors(entries)
    n_vocab = parts.check_embedding(entries)
    header = _native.GgufHeader.new()
    for key, value, value_type in general_keys(folder, architecture, {tensor.name: tensor.dims for tensor in tensors}):
        header.set(key, value, value_type)
    for key, value, value_type in entries:
        if key == "general.file_type":
            header.set(key, _file_type(tensors), value_type)
        else:
            header.set(f"{architecture}.{key}", value, value_type)
    header.set("general.quantization_version", 2, "u32")
    if with_tokenizer:
        tokenizer = tokenizer_keys(folder.path, folder.config.values, pre=pre, n_vocab=n_vocab, name_rules=not to_run)
        for key, token_value, value_type in tokenizer:
            header.set(key, cast("Value", token_value), value_type)
    return _native.Gguf.assembled(header, parts.sources, tensors)


def format_of(config: Config) -> tuple[str, CheckpointFormat]:
    """The GGUF architecture, and how its weights are stored.

    Raises
    ------
    InputError
        The model is in no row of `FAMILIES`.
    """
    model_type, classes = config.text("model_type"), config.items("architectures") or []
    rows = [(architecture, row) for architecture, family in FAMILIES.items() for row in family.formats]
    for architecture, row in rows:
        if model_type in (row.model_type, *row.other_model_types):
            return architecture, row
    for architecture, row in rows:
        if not model_type and row.model_class in classes:
            return architecture, row
    known = sorted({row.model_type for _, row in rows})
    raise InputError(
        f"{config.path}: 'model_type' is {model_type[:60]!r}, expected one of {', '.join(known)}; "
        "--arch generic quantizes any checkpoint by the shapes of its tensors"
    )


@dataclass
class _Stack:
    """Experts on their way into one tensor."""

    weight: Weight
    i: int
    members: dict[int, HfTensor] = field(default_factory=dict)


class _Assembly:
    """One folder read through one format."""

    def __init__(self, folder: Folder, format_: CheckpointFormat) -> None:
        self.folder, self.format, self.config = folder, format_, folder.config
        self.sources: list[str | Memory] = list(folder.sources)
        self._weights = format_.by_huggingface()
        self._expected: dict[str, tuple[int, ...]] = {}

    def entries(self) -> list[Entry]:
        """The architecture's keys."""
        for setting in self.format.settings:
            found = self.config.get(setting.config)
            if found is not None and not any(found == value and type(found) is type(value) for value in setting.values):
                raise self.config.unsupported(f"'{setting.config}' {str(found)[:60]!r}")
        return [entry for key in self.format.keys for entry in key.to_gguf(self.config)]

    def tensors(self, entries: Sequence[Entry]) -> "list[AssembledTensor]":
        """Every tensor of the GGUF file, in the order of the reference converter: as they lie, experts where their last one lies."""
        numbers = {key: value for key, value, _ in entries if isinstance(value, int)}
        n_blocks, n_experts = numbers["block_count"], numbers.get("expert_count", 0)
        heads = {"query_heads": numbers["attention.head_count"]}
        heads["key_heads"] = numbers.get("attention.head_count_kv", heads["query_heads"])
        self._check_block_count(n_blocks)
        self._expected = _expected_shapes(numbers)
        tensors = list(self._rope_factors(entries))
        stacks: dict[int, dict[str, _Stack]] = {}
        present: set[tuple[str, int]] = set()
        for tensor in self.folder.tensors.values():
            found = self._row_of(tensor)
            if found is None:
                continue
            weight, (i, x), suffix = found
            present.add((weight.gguf, i))
            if "{x}" not in weight.huggingface:
                tensors.append(self._single(weight, tensor, i, suffix, heads))
                continue
            if not 0 <= x < n_experts or suffix != "weight":
                raise FormatError(f"{self._where(tensor)}: an expert's tensor; expected weights of {n_experts} experts by config.json")
            block = stacks.setdefault(i, {})
            block.setdefault(weight.gguf, _Stack(weight, i)).members[x] = tensor
            n_rows = sum("{x}" in row.huggingface for row in self.format.weights)
            if sum(len(stack.members) for stack in block.values()) == n_rows * n_experts:
                order = [row.gguf for row in self.format.weights if row.gguf in block]
                tensors.extend(self._stacked(block[name], n_experts) for name in order)
                del stacks[i]
        for i, block in stacks.items():
            n_found = sum(len(stack.members) for stack in block.values())
            raise FormatError(
                f"{self.folder.path}: block {i} has {n_found} tensors of experts, expected those of {n_experts} in each projection"
            )
        self._check_all_there(present, n_blocks)
        return tensors

    def check_embedding(self, entries: Sequence[Entry]) -> int:
        """Rows of the embedding, which have to be what the configuration says."""
        name = self.format.by_gguf()["token_embd"].huggingface
        shape = self._find(f"{name}.weight").shape
        n_embd = next(value for key, value, _ in entries if key == "embedding_length")
        n_vocab = self.config.integer("vocab_size", default=shape[0])
        if shape != (n_vocab, n_embd):
            raise FormatError(f"{self.folder.path}: {name}.weight has the shape {shape}, config.json says {(n_vocab, n_embd)}")
        return n_vocab

    def _find(self, name: str) -> HfTensor:
        tensors = self.folder.tensors
        for candidate in (name, name.removeprefix(self.format.prefix)):
            if candidate in tensors:
                return tensors[candidate]
        found = next((tensor for full, tensor in tensors.items() if self._canonical(full) == name), None)
        if found is None:
            raise FormatError(f"{self.folder.path}: no tensor {name!r}; the checkpoint is incomplete or of another model")
        return found

    def _canonical(self, name: str) -> str:
        """The name without the parts that only checkpoints with pictures have."""
        return name.replace("language_model.", "") if self.config.is_multimodal else name

    def _row_of(self, tensor: HfTensor) -> tuple[Weight, tuple[int, int], str] | None:
        """The row for a tensor, its block and expert, and ``weight`` or ``bias``; None for what GGUF files do not hold."""
        name = self._canonical(tensor.name)
        if name.endswith(_BUFFERS) or (self.config.is_multimodal and any(part in name for part in _ELSEWHERE)):
            return None
        stem, _, suffix = name.rpartition(".")
        if stem in self.format.drops:
            return None
        for candidate in (stem, self.format.prefix + stem):
            template, numbers = template_of(candidate + ".")
            weight = self._weights.get(template.removesuffix("."))
            if weight is not None and suffix in ("weight", "bias"):
                i, x = (*numbers, 0, 0)[:2]
                return weight, (i, x), suffix
        raise InputError(
            f"{self._where(tensor)}: no tensor of a {self.format.model_type} model has this name; "
            "if it is a variant of that model, only --arch generic can keep it"
        )

    def _where(self, tensor: HfTensor) -> str:
        source = self.folder.sources[tensor.source]
        return f"{source if isinstance(source, str) else source[0]}: {tensor.name}"

    def _single(self, weight: Weight, tensor: HfTensor, i: int, suffix: str, heads: dict[str, int]) -> "AssembledTensor":
        check_float(tensor, self._where(tensor))
        n_axes = 1 if weight.vector or suffix == "bias" else 2
        if len(tensor.shape) != n_axes or 0 in tensor.shape:
            raise FormatError(f"{self._where(tensor)}: has the shape {tensor.shape}, expected {n_axes} axes, none of them empty")
        expected = self._expected.get(weight.gguf, tensor.shape) if suffix == "weight" else tensor.shape
        if tensor.shape not in (expected, expected[::-1] if weight.transposed else expected):
            raise FormatError(f"{self._where(tensor)}: has the shape {tensor.shape}, expected {expected} by config.json")
        dims = tuple(reversed(tensor.shape))
        order, n_heads = "as_stored", heads.get(weight.order, 0)
        if n_heads:
            order = "halves_to_pairs"
            if tensor.shape[0] % (2 * n_heads):
                raise FormatError(f"{self._where(tensor)}: has {tensor.shape[0]} rows, expected an even number for each of {n_heads} heads")
        if weight.transposed and suffix == "weight" and tensor.packed is None:
            order, dims = "transposed", tensor.shape
        if n_heads and n_axes == 1:
            raw = read_bytes_of(self.folder.sources[tensor.source], tensor.offset, tensor.nbytes)
            part = ordered_bias(self.sources, self._where(tensor), raw, tensor.dtype, n_heads=n_heads, to_pairs=True)
        else:
            part = tensor.part(math.prod(dims[1:]), order, n_heads)
        exact = n_axes == 1 or weight.gguf in _ALWAYS_F32
        type_name = "F32" if exact else carried_type([tensor])
        add = weight.add if suffix == "weight" else 0.0
        return _native.AssembledTensor(f"{numbered(weight.gguf, i)}.{suffix}", dims, type_name, [part], add=add)

    def _stacked(self, stack: _Stack, n_experts: int) -> "AssembledTensor":
        members = [stack.members[x] for x in range(n_experts) if x in stack.members]
        first = members[0]
        for tensor in members:
            check_float(tensor, self._where(tensor))
            if len(tensor.shape) != 2 or 0 in tensor.shape or tensor.shape != first.shape or tensor.dtype != first.dtype:
                raise FormatError(
                    f"{self._where(tensor)}: {tensor.dtype} of the shape {tensor.shape}, expected a matrix like {first.name}: "
                    f"{first.dtype} of {first.shape}"
                )
        parts = [t.part(t.shape[0]) for t in members]
        dims = (*reversed(first.shape), len(members))
        return _native.AssembledTensor(f"{numbered(stack.weight.gguf, stack.i)}.weight", dims, carried_type(members), parts)

    def _rope_factors(self, entries: Iterable[Entry]) -> "Iterable[AssembledTensor]":
        lengths = {key: value for key, value, _ in entries if isinstance(value, int)}
        per_head = lengths["embedding_length"] // lengths["attention.head_count"]
        n_dims = lengths.get("rope.dimension_count") or lengths.get("attention.key_length") or per_head
        for name, factors in factor_tensors(self.config, n_dims):
            import numpy as np

            raw = np.frombuffer(struct.pack(f"<{len(factors)}f", *factors), dtype=np.uint8)
            self.sources.append((f"{self.config.path}: {name}", raw))
            yield _native.AssembledTensor(name, (len(factors),), "F32", [_native.Part(len(self.sources) - 1, 0, "F32", 1)])

    def _check_block_count(self, n_blocks: int) -> None:
        """Before anything is sized by it: blocks are as many as there are tensors for."""
        block_rows = {row.huggingface for row in self.format.weights if "{i}" in row.huggingface}
        found: set[int] = set()
        for name in self.folder.tensors:
            stem = self._canonical(name).rpartition(".")[0]
            for candidate in (stem, self.format.prefix + stem):
                template, numbers = template_of(candidate + ".")
                if template.removesuffix(".") in block_rows:
                    found.add(numbers[0])
        if n_blocks != len(found) or (found and max(found) + 1 != len(found)):
            raise FormatError(
                f"{self.config.path}: says {n_blocks} blocks, the files have tensors of {len(found)}; "
                "the checkpoint is incomplete or of another model"
            )

    def _check_all_there(self, present: set[tuple[str, int]], n_blocks: int) -> None:
        for weight in self.format.weights:
            blocks = range(n_blocks) if "{i}" in weight.gguf else range(1)
            for i in () if weight.optional else blocks:
                if (weight.gguf, i) not in present:
                    name = numbered(weight.huggingface, i)
                    raise FormatError(f"{self.folder.path}: no tensor {name}.weight; the checkpoint is incomplete or of another model")


def _expected_shapes(numbers: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Of projections and embeddings, by what they are called in GGUF, as ``(out_features, in_features)``."""
    n_embd, n_heads = numbers["embedding_length"], numbers["attention.head_count"]
    n_kv_heads, n_ff = numbers.get("attention.head_count_kv", n_heads), numbers["feed_forward_length"]
    k_dim = numbers.get("attention.key_length", n_embd // n_heads)
    v_dim = numbers.get("attention.value_length", k_dim)
    return {
        "output_norm": (n_embd,),
        "position_embd": (numbers["context_length"], n_embd),
        "blk.{i}.attn_q": (n_heads * k_dim, n_embd),
        "blk.{i}.attn_k": (n_kv_heads * k_dim, n_embd),
        "blk.{i}.attn_v": (n_kv_heads * v_dim, n_embd),
        "blk.{i}.attn_qkv": (n_heads * k_dim + n_kv_heads * (k_dim + v_dim), n_embd),
        "blk.{i}.attn_output": (n_embd, n_heads * v_dim),
        "blk.{i}.ffn_gate": (n_ff, n_embd),
        "blk.{i}.ffn_down": (n_embd, n_ff),
    }


def _file_type(tensors: "Sequence[AssembledTensor]") -> int:
    """What the reference calls a file of such matrices: by the blocks that most of them are, else by the first that is not float32."""
    weights: Counter[str] = Counter()
    for tensor in tensors:
        if len(tensor.dims) > 1:
            weights[tensor.type_name] += math.prod(tensor.dims)
    blocks = [(n, name) for name, n in weights.items() if is_quantized(name)]
    if blocks:
        return next(row.id or 0 for row in FILE_TYPES if row.default_type == max(blocks)[1])
    return next((_FILE_TYPE_IDS[name] for name in weights if name != "F32"), 0)
