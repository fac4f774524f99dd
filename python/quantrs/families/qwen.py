"""Qwen 2 and 3 with one MLP per block; Qwen 3 norms each head of queries and keys, as its tensors say."""

from quantrs.families import parts
from quantrs.families.source import Source
from quantrs.families.spec import Block, GraphSpec


def build(model: Source) -> GraphSpec:
    """As Llama, with the halves of a head rotated, and biases where the file has them."""

    def block(i: int) -> Block:
        _, _, k_dim, _ = parts.head_dims(model, i)
        return Block(
            parts.attention(model, i, parts.rope(model, "neox", k_dim)),
            parts.mlp(model, i, "silu"),
            parts.norm(model, f"blk.{i}.attn_norm"),
            parts.norm(model, f"blk.{i}.ffn_norm"),
        )

    return parts.graph(model, parts.blocks(model, block))
