"""GPT-2: learned positions, LayerNorm, biases everywhere, an MLP without a gate."""

from quantrs.families import parts
from quantrs.families.source import Source
from quantrs.families.spec import Block, GraphSpec


def build(model: Source) -> GraphSpec:
    """Pre-norm blocks over embeddings plus positions."""

    def block(i: int) -> Block:
        return Block(
            parts.attention(model, i, None),
            parts.mlp(model, i, "gelu_tanh"),
            parts.norm(model, f"blk.{i}.attn_norm"),
            parts.norm(model, f"blk.{i}.ffn_norm"),
        )

    return parts.graph(model, parts.blocks(model, block), position_embd="position_embd.weight")
