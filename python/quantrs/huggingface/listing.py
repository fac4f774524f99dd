"""The tensors that a checkpoint has, told from its ``config.json`` alone: names, shapes and type, without a byte of data.

What decides is the family's own `CheckpointFormat`; here are the lengths of its axes, and what the configuration switches on and off.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from quantrs.errors import InputError, QuantrsError
from quantrs.families.checkpoint_format import CheckpointFormat, Weight, numbered
from quantrs.huggingface.assemble import assemble, format_of
from quantrs.huggingface.biased import biased_weights
from quantrs.huggingface.config import Config
from quantrs.huggingface.folder import Folder, HfTensor

if TYPE_CHECKING:
    from quantrs._native import Gguf

__all__ = ["Described", "describe", "list_tensors", "listed_folder"]

_SAYS_QUANTIZED = ("quantization_config", "compression_config")
_QUANTIZED = ("the configuration is of a quantized checkpoint; described is the model that it was made from",)
_MAX_TENSORS = 1 << 20
_MAX_TENSOR_BYTES = 1 << 35
_DTYPES = {
    "float32": ("F32", 4),
    "float16": ("F16", 2),
    "bfloat16": ("BF16", 2),
    "float8_e4m3fn": ("F8_E4M3", 1),
    "float8_e5m2": ("F8_E5M2", 1),
}


@dataclass(frozen=True)
class _Habits:
    """What transformers does in a model's code, or takes where the configuration is silent."""

    tied: bool = False
    """The default of ``tie_word_embeddings``."""
    norms_whole: bool = False
    """Norms of queries and keys go over all heads at once."""
    n_vocab: int | None = None
    """The default of ``vocab_size``, where checkpoints leave it out."""


_HABITS: Mapping[str, _Habits] = {
    "gemma": _Habits(tied=True),
    "gemma2": _Habits(tied=True),
    "gemma3_text": _Habits(tied=True, n_vocab=262_208),
    "gpt2": _Habits(tied=True),
    "olmo2": _Habits(norms_whole=True),
    "olmo3": _Habits(norms_whole=True),
    "smollm3": _Habits(tied=True),
}
"""By ``model_type``, those that differ from the rest."""


@dataclass(frozen=True)
class Described:
    """A model of which there is no more than a description."""

    gguf: "Gguf"
    """To be planned with; its data is not there."""
    weights_bytes: int
    """Of all tensors in the type that the configuration names."""
    notices: tuple[str, ...]


def describe(path: str | Path, *, pre: str | None = None) -> Described:
    """A model by its ``config.json``; with the tokenizer, if that lies in the same folder.

    Raises
    ------
    FileError, FormatError, InputError
        As `listed_folder`.
    """
    folder = listed_folder(path)
    notices = _QUANTIZED if any(key in Config.read(Path(path)).values for key in _SAYS_QUANTIZED) else ()
    weights_bytes = sum(tensor.nbytes for tensor in folder.tensors.values())
    try:
        return Described(assemble(folder, pre=pre), weights_bytes, notices)
    except QuantrsError as error:
        gguf = assemble(folder, with_tokenizer=False)
        return Described(gguf, weights_bytes, (*notices, f"the tokenizer is not counted, some MB in the file: {error}"))


def listed_folder(path: str | Path) -> Folder:
    """A folder as a ``config.json`` describes it; its data may be sized, not read.

    Raises
    ------
    FileError, FormatError
        The file cannot be read, or a value in it is missing or impossible.
    InputError
        The model is of no known family, or absurdly large.
    """
    config = Config.read(Path(path))
    config = Config({key: value for key, value in config.values.items() if key not in _SAYS_QUANTIZED}, config.path)
    shapes = list_tensors(config)
    dtype, value_bytes = _DTYPES[_dtype_name(config)]
    tensors = {name: HfTensor(name, dtype, shape, 0, 0, value_bytes * prod(shape)) for name, shape in shapes.items()}
    largest = max(tensors.values(), key=lambda tensor: tensor.nbytes)
    if largest.nbytes > _MAX_TENSOR_BYTES:
        raise InputError(f"{path}: {largest.name} would be {largest.shape}, larger than any model's; correct the file")
    # Zeros that the system hands out when they are touched, which they never are; all tensors begin at the first.
    nothing = np.zeros(largest.nbytes, np.uint8)
    return Folder(Path(path).parent, tensors, [(str(path), nothing)], config)


def list_tensors(config: Config) -> dict[str, tuple[int, ...]]:
    """Shapes by name, outermost axis first, block by block.

    Raises
    ------
    FormatError
        A value is missing or impossible.
    InputError
        The model is of no known family, or absurdly large.
    """
    _, format_ = format_of(config)
    listing = _Listing(config, format_)
    return dict(listing.tensors())


def _dtype_name(config: Config) -> str:
    name = config.text("dtype", "torch_dtype", default="float32").removeprefix("torch.")
    if name not in _DTYPES:
        raise config.wrong("torch_dtype", name, f"one of {', '.join(_DTYPES)}")
    return name


class _Listing:
    """One configuration read through one format."""

    def __init__(self, config: Config, format_: CheckpointFormat) -> None:
        self.config, self.format = config, format_
        self.habits = _HABITS.get(format_.model_type, _Habits())
        numbers = {key: value for row in format_.keys for key, value, _ in row.to_gguf(config) if isinstance(value, int)}
        self.n_blocks, self.n_experts = numbers["block_count"], numbers.get("expert_count", 0)
        if self.n_blocks * max(1, self.n_experts) * len(format_.weights) > _MAX_TENSORS:
            raise InputError(
                f"{config.path}: {self.n_blocks} blocks of {self.n_experts} experts are more than any model has; correct the file"
            )
        self.shapes = _shapes(numbers, config.integer("vocab_size", default=self.habits.n_vocab), self.habits, self.format)
        self.biased = biased_weights(config, format_)

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and shapes."""
        tied = self.config.flag("tie_word_embeddings", default=self.habits.tied)
        for weight in self.format.weights:
            if "{i}" not in weight.gguf and not (weight.gguf == "output" and tied):
                yield from self._named(weight, 0, 0)
        for i in range(self.n_blocks):
            has_experts = self._has_experts(i)
            for weight in self.format.weights:
                if "{i}" in weight.gguf and (not weight.optional or _is_of_experts(weight) == has_experts):
                    for x in range(self.n_experts if "{x}" in weight.huggingface else 1):
                        yield from self._named(weight, i, x)

    def _named(self, weight: Weight, i: int, x: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        shape = self.shapes[weight.gguf]
        name = numbered(weight.huggingface, i, x)
        yield f"{name}.weight", shape[::-1] if weight.transposed else shape
        if weight.gguf in self.biased:
            yield f"{name}.bias", shape[:1]

    def _has_experts(self, i: int) -> bool:
        """Qwen's mixtures may have dense blocks; all others have experts in every block or in none."""
        if not self.n_experts:
            return False
        dense = self.config.items("mlp_only_layers") or []
        return i not in dense and (i + 1) % self.config.integer("decoder_sparse_step", default=1) == 0


def _is_of_experts(weight: Weight) -> bool:
    return weight.gguf.endswith(("_exps", "_shexp", ".ffn_gate_inp"))


def _shapes(numbers: Mapping[str, int], n_vocab: int, habits: _Habits, format_: CheckpointFormat) -> dict[str, tuple[int, ...]]:
    """``(out_features, in_features)``, of one expert where there are several, by the name in GGUF."""
    n_embd, n_heads, n_ff = (numbers[key] for key in ("embedding_length", "attention.head_count", "feed_forward_length"))
    n_kv_heads = numbers.get("attention.head_count_kv", n_heads)
    k_dim = numbers.get("attention.key_length", n_embd // n_heads)
    v_dim = numbers.get("attention.value_length", k_dim)
    n_queries, n_keys, n_values = n_heads * k_dim, n_kv_heads * k_dim, n_kv_heads * v_dim
    n_expert_ff = numbers.get("expert_feed_forward_length", n_ff)
    n_shared_ff = numbers.get("expert_shared_feed_forward_length", n_ff)
    has_gate = any(weight.gguf == "blk.{i}.ffn_gate" for weight in format_.weights)
    fused = not has_gate and any(weight.huggingface.endswith("gate_up_proj") for weight in format_.weights)
    block = {
        "attn_q": (n_queries, n_embd),
        "attn_k": (n_keys, n_embd),
        "attn_v": (n_values, n_embd),
        "attn_qkv": (n_queries + n_keys + n_values, n_embd),
        "attn_output": (n_embd, n_heads * v_dim),
        "attn_q_norm": (n_queries if habits.norms_whole else k_dim,),
        "attn_k_norm": (n_keys if habits.norms_whole else k_dim,),
        "ffn_gate": (n_ff, n_embd),
        "ffn_up": ((2 if fused else 1) * n_ff, n_embd),
        "ffn_down": (n_embd, n_ff),
        "ffn_gate_inp": (numbers.get("expert_count", 0), n_embd),
        "ffn_gate_exps": (n_expert_ff, n_embd),
        "ffn_up_exps": (n_expert_ff, n_embd),
        "ffn_down_exps": (n_embd, n_expert_ff),
        "ffn_gate_inp_shexp": (1, n_embd),
        "ffn_gate_shexp": (n_shared_ff, n_embd),
        "ffn_up_shexp": (n_shared_ff, n_embd),
        "ffn_down_shexp": (n_embd, n_shared_ff),
    }
    block |= {f"{name}_norm": (n_embd,) for name in ("attn", "ffn", "post_attention", "post_ffw")}
    whole = {"token_embd": (n_vocab, n_embd), "output": (n_vocab, n_embd), "output_norm": (n_embd,)}
    whole["position_embd"] = (numbers["context_length"], n_embd)
    return whole | {f"blk.{{i}}.{name}": shape for name, shape in block.items()}
