"""Granite 3: Llama with factors of embeddings, scores, residuals and logits in the metadata."""

from quantrs.families import parts
from quantrs.families.source import Source
from quantrs.families.spec import Block, GraphSpec


def build(model: Source) -> GraphSpec:
    """As Llama; the logits are divided by their factor."""
    residual_scale = model.optional("residual_scale") or 1.0

    def block(i: int) -> Block:
        _, _, k_dim, _ = parts.head_dims(model, i)
        rotated = model.flag("rope.scaling.finetuned", default=True)
        rope = parts.rope(model, "normal", k_dim) if rotated else None
        return Block(
            parts.attention(model, i, rope, scale=model.optional("attention.scale")),
            parts.mlp(model, i, "silu"),
            parts.norm(model, f"blk.{i}.attn_norm"),
            parts.norm(model, f"blk.{i}.ffn_norm"),
            residual_scale=residual_scale,
        )

    return parts.graph(
        model,
        parts.blocks(model, block),
        embedding_scale=model.optional("embedding_scale") or 1.0,
        logit_scale=1.0 / (model.optional("logit_scale") or 1.0),
    )
