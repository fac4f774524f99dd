"""Llama 1 to 3, Mistral, Mixtral, SmolLM, TinyLlama and whatever else converters call ``llama``."""

from typing import TYPE_CHECKING

from quantrs.families import checkpoint_rows as rows
from quantrs.families import parts
from quantrs.families.checkpoint_format import CheckpointFormat, Computed, Entry, Key, Weight
from quantrs.families.source import Source
from quantrs.families.spec import Block, GraphSpec

if TYPE_CHECKING:
    from quantrs.huggingface.config import Config


def build(model: Source) -> GraphSpec:
    """Pre-norm blocks of grouped attention and a gated MLP, or experts where the metadata counts some.

    Mistral's window comes from a key that the reference converter does not write and llama.cpp does not read.
    """
    window = model.integer("attention.sliding_window", 0, at_least=0) or None

    def block(i: int) -> Block:
        _, _, k_dim, _ = parts.head_dims(model, i)
        has_experts = model.integer("expert_count", 0, at_least=0) > 0
        return Block(
            parts.attention(model, i, parts.rope(model, "normal", k_dim), window=window, scale=model.optional("attention.scale")),
            parts.moe(model, i, renormalize=True) if has_experts else parts.mlp(model, i, "silu"),
            parts.norm(model, f"blk.{i}.attn_norm"),
            parts.norm(model, f"blk.{i}.ffn_norm"),
        )

    return parts.graph(model, parts.blocks(model, block))


def _head_dim_to_gguf(config: "Config") -> list[Entry]:
    length = rows.head_dim(config)
    return [("attention.key_length", length, "u32"), ("attention.value_length", length, "u32")]


VOCABULARY_AND_ROTATION = (
    Key("vocab_size", "vocab_size"),
    Computed(lambda config: [("rope.dimension_count", rows.head_dim(config), "u32")], lambda _model: {}),
)
_HEAD_DIM = Computed(_head_dim_to_gguf, rows.HEAD_DIM.to_config)
_EPSILON = Key("attention.layer_norm_rms_epsilon", "rms_norm_eps", "f32", default=1e-6)
_WINDOW = Key("attention.sliding_window", "sliding_window", optional=True)


def _mistral_window(config: "Config") -> list[Entry]:
    """Null is none, but a configuration that does not mention it means 4096."""
    if "sliding_window" not in config.values:
        return [("attention.sliding_window", 4096, "u32")]
    return _WINDOW.to_gguf(config)


_LLAMA_KEYS = (*rows.SIZES, *rows.rotation(), _EPSILON, _HEAD_DIM, rows.FILE_TYPE, *VOCABULARY_AND_ROTATION)
LLAMA_WEIGHTS = (*rows.EMBEDDINGS, *rows.pre_norms(), *rows.PROJECTIONS_IN_PAIRS, *rows.mlp())

LLAMA = CheckpointFormat(model_type="llama", model_class="LlamaForCausalLM", weights=LLAMA_WEIGHTS, keys=_LLAMA_KEYS, settings=(rows.SILU,))

MISTRAL = CheckpointFormat(
    model_type="mistral",
    model_class="MistralForCausalLM",
    weights=LLAMA_WEIGHTS,
    keys=(*_LLAMA_KEYS, Computed(_mistral_window, _WINDOW.to_config)),
    settings=(rows.SILU,),
    fits=lambda model: model.value("attention.sliding_window") is not None,
)

MIXTRAL = CheckpointFormat(
    model_type="mixtral",
    model_class="MixtralForCausalLM",
    weights=(
        *rows.EMBEDDINGS,
        *rows.pre_norms(),
        *rows.PROJECTIONS_IN_PAIRS,
        Weight("blk.{i}.ffn_gate_inp", "model.layers.{i}.block_sparse_moe.gate"),
        Weight("blk.{i}.ffn_gate_exps", "model.layers.{i}.block_sparse_moe.experts.{x}.w1"),
        Weight("blk.{i}.ffn_down_exps", "model.layers.{i}.block_sparse_moe.experts.{x}.w2"),
        Weight("blk.{i}.ffn_up_exps", "model.layers.{i}.block_sparse_moe.experts.{x}.w3"),
    ),
    keys=(
        *rows.SIZES,
        *rows.rotation(1_000_000.0),
        Key("attention.layer_norm_rms_epsilon", "rms_norm_eps", "f32", default=1e-5),
        Key("expert_count", "num_local_experts", default=8),
        Key("expert_used_count", "num_experts_per_tok", default=2),
        _HEAD_DIM,
        rows.FILE_TYPE,
        *VOCABULARY_AND_ROTATION,
        _WINDOW,
    ),
    settings=(rows.SILU,),
    fits=lambda model: model.integer("expert_count", 0, at_least=0) > 0,
)

FORMATS = (MIXTRAL, MISTRAL, LLAMA)
