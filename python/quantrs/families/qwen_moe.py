"""Qwen 2 MoE, whose shared expert has a gate and whose weights do not sum to 1, and Qwen 3 MoE, whose weights do."""

from quantrs.families import parts
from quantrs.families.source import Source
from quantrs.families.spec import Block, GraphSpec, Moe


def build_qwen2moe(model: Source) -> GraphSpec:
    """Experts and a shared one."""
    shared_n_ff = model.integer("expert_shared_feed_forward_length", model.integer("feed_forward_length"))
    return _build(model, [parts.moe(model, i, renormalize=False, shared_n_ff=shared_n_ff) for i in range(model.n_blocks)])


def build_qwen3moe(model: Source) -> GraphSpec:
    """Experts alone."""
    return _build(model, [parts.moe(model, i, renormalize=True) for i in range(model.n_blocks)])


def _build(model: Source, experts: list[Moe]) -> GraphSpec:
    def block(i: int) -> Block:
        _, _, k_dim, _ = parts.head_dims(model, i)
        return Block(
            parts.attention(model, i, parts.rope(model, "neox", k_dim)),
            experts[i],
            parts.norm(model, f"blk.{i}.attn_norm"),
            parts.norm(model, f"blk.{i}.ffn_norm"),
        )

    return parts.graph(model, parts.blocks(model, block))
