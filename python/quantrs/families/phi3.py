"""Phi 3: queries, keys and values in one matrix, gate and up in another; LongRoPE divisors for two lengths of context."""

import dataclasses

from quantrs.families import parts
from quantrs.families.source import Source
from quantrs.families.spec import Block, GraphSpec


def build(model: Source) -> GraphSpec:
    """As Llama, with fused matrices. The divisors are those of the context asked for.

    The sliding window in the metadata of these files is not used, as in llama.cpp: converters wrote it where the models have none.
    """
    original = model.integer("rope.scaling.original_context_length", model.n_ctx_train)
    factors = "rope_factors_long.weight" if model.n_ctx > original else "rope_factors_short.weight"

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
