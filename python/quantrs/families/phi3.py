"""Phi 3: queries, keys and values in one matrix, gate and up in another; LongRoPE divisors for two lengths of context."""

import dataclasses
import math
from typing import TYPE_CHECKING

from quantrs.families import checkpoint_rows as rows
from quantrs.families import parts
from quantrs.families.checkpoint_format import CheckpointFormat, Computed, Entry, Key, Weight, shortest_float32
from quantrs.families.rope_scaling import ROPE_FACTORS_LONG, ROPE_FACTORS_SHORT, freq_base, rope_config
from quantrs.families.source import Source
from quantrs.families.spec import Block, GraphSpec

if TYPE_CHECKING:
    from quantrs.huggingface.config import Config


def build(model: Source) -> GraphSpec:
    """As Llama, with fused matrices. The divisors are those of the context asked for.

    The sliding window in the metadata of these files is not used, as in llama.cpp: converters wrote it where the models have none.
    """
    original = model.integer("rope.scaling.original_context_length", model.n_ctx_train)
    factors = ROPE_FACTORS_LONG if model.n_ctx > original else ROPE_FACTORS_SHORT

    def block(i: int) -> Block:
        _, _, k_dim, _ = parts.head_dims(model, i)
        rope = parts.rope(model, "neox", k_dim)
        if model.has(factors):
            rope = dataclasses.replace(rope, factors=factors)
        return Block(
            parts.attention(model, i, rope),
            parts.fused_mlp(model, i, "silu"),
            parts.norm(model, f"blk.{i}.attn_norm"),
            parts.norm(model, f"blk.{i}.ffn_norm"),
        )

    return parts.graph(model, parts.blocks(model, block))


def _original_context(config: "Config") -> int:
    scaling = rope_config(config)
    inside = scaling.get("original_max_position_embeddings") if scaling else None
    default = scaling.integer("original_max_position_embeddings") if scaling and inside is not None else 4096
    return config.integer("original_max_position_embeddings", default=default)


def _magnitude(config: "Config") -> list[Entry]:
    """What LongRoPE multiplies rotated values with (Ding et al. 2024, arXiv 2402.13753)."""
    scaling = rope_config(config)
    kind = scaling.text("rope_type", "type", default="default") if scaling else "default"
    if kind == "default":
        return []
    if kind not in ("su", "longrope"):
        raise config.unsupported(f"'rope_scaling' of the type {kind!r} in Phi 3")
    original = max(2, _original_context(config))
    factor = config.integer("max_position_embeddings") / original
    magnitude = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1.0 else 1.0
    return [("rope.scaling.attn_factor", magnitude, "f32")]


def _factors_to_config(model: Source) -> dict[str, object]:
    long, short = model.factors(ROPE_FACTORS_LONG), model.factors(ROPE_FACTORS_SHORT)
    if long is None or short is None:
        return {"rope_scaling": None}
    lists = {"long_factor": long, "short_factor": short}
    return {"rope_scaling": {"type": "longrope", **{k: [shortest_float32(f) for f in v] for k, v in lists.items()}}}


def rotated_dims(config: "Config") -> int:
    """Values of each head that are rotated."""
    fraction = config.number("partial_rotary_factor", default=1.0, at_least=0.0)
    return int(min(fraction, 1.0) * config.integer("hidden_size")) // config.integer("num_attention_heads")


def _rotated_dims_to_config(model: Source) -> dict[str, object]:
    n_heads = model.integer("attention.head_count")
    n_dims = model.integer("rope.dimension_count", max(1, model.n_embd // n_heads))
    return {"partial_rotary_factor": min(1.0, n_dims * n_heads / model.n_embd)}


def _window(config: "Config") -> list[Entry]:
    return [("attention.sliding_window", config.integer("sliding_window", default=0), "u32")]


def _window_to_config(model: Source) -> dict[str, object]:
    return {"sliding_window": model.integer("attention.sliding_window", 0, at_least=0) or None}


FORMATS = (
    CheckpointFormat(
        model_type="phi3",
        model_class="Phi3ForCausalLM",
        weights=(
            *rows.EMBEDDINGS,
            *rows.pre_norms(),
            Weight("blk.{i}.attn_qkv", "model.layers.{i}.self_attn.qkv_proj"),
            Weight("blk.{i}.attn_output", "model.layers.{i}.self_attn.o_proj"),
            Weight("blk.{i}.ffn_up", "model.layers.{i}.mlp.gate_up_proj"),
            Weight("blk.{i}.ffn_down", "model.layers.{i}.mlp.down_proj"),
        ),
        keys=(
            Computed(_magnitude, _factors_to_config),
            Key("context_length", "max_position_embeddings", default=4096),
            Computed(
                lambda config: [("rope.scaling.original_context_length", _original_context(config), "u32")],
                lambda model: {
                    "original_max_position_embeddings": model.integer("rope.scaling.original_context_length", model.n_ctx_train)
                },
            ),
            Key("embedding_length", "hidden_size"),
            Key("feed_forward_length", "intermediate_size"),
            Key("block_count", "num_hidden_layers"),
            Key("attention.head_count", "num_attention_heads"),
            Key("attention.head_count_kv", "num_key_value_heads", default=lambda config: config.integer("num_attention_heads")),
            Key("attention.layer_norm_rms_epsilon", "rms_norm_eps", "f32", default=1e-5),
            Computed(lambda config: [("rope.dimension_count", rotated_dims(config), "u32")], _rotated_dims_to_config),
            freq_base(10_000.0),
            rows.FILE_TYPE,
            Computed(_window, _window_to_config),
        ),
        settings=(rows.SILU,),
    ),
)
