"""Llama 1 to 3, Mistral, Mixtral, SmolLM, TinyLlama and whatever else converters call ``llama``."""

from quantrs.families import parts
from quantrs.families.source import Source
from quantrs.families.spec import Block, GraphSpec


def build(model: Source) -> GraphSpec:
    """Pre-norm blocks of grouped attention and a gated MLP, or experts where the metadata counts some."""

    def block(i: int) -> Block:
        _, _, k_dim, _ = parts.head_dims(model, i)
        has_experts = model.integer("expert_count", 0, at_least=0) > 0
        return Block(
            parts.attention(model, i, parts.rope(model, "normal", k_dim), scale=model.optional("attention.scale")),
            parts.moe(model, i, renormalize=True) if has_experts else parts.mlp(model, i, "silu"),
            parts.norm(model, f"blk.{i}.attn_norm"),
            parts.norm(model, f"blk.{i}.ffn_norm"),
        )

    return parts.graph(model, parts.blocks(model, block))
