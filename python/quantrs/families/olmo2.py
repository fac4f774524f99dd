"""OLMo 2 and 3: norms after attention and MLP instead of before, and over all heads of queries and keys at once."""

from quantrs.families import parts
from quantrs.families.source import Source
from quantrs.families.spec import Block, GraphSpec


def build(model: Source) -> GraphSpec:
    """Post-norm blocks; in OLMo 3 three of four have a window, and long contexts are scaled in the fourth alone."""
    windows = parts.window_pattern(model, 4)

    def block(i: int) -> Block:
        _, _, k_dim, _ = parts.head_dims(model, i)
        base = model.optional("rope.freq_base_swa") if windows[i] else None
        rope = parts.rope(model, "neox", k_dim, base=base, scaled=windows[i] is None)
        return Block(
            parts.attention(model, i, rope, window=windows[i]),
            parts.mlp(model, i, "silu"),
            None,
            None,
            parts.norm(model, f"blk.{i}.post_attention_norm"),
            parts.norm(model, f"blk.{i}.post_ffw_norm"),
        )

    return parts.graph(model, parts.blocks(model, block))
