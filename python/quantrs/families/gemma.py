"""Gemma 1 to 3. Converters add the 1 of Gemma's norms to their weights."""

import math

from quantrs.families import parts
from quantrs.families.source import Source
from quantrs.families.spec import Block, GraphSpec

_BLOCKS_OF_27B = {"gemma2": 46, "gemma3": 62}


def build_gemma(model: Source) -> GraphSpec:
    """Pre-norm blocks with GELU."""
    return _build(model, [None] * model.n_blocks)


def build_gemma2(model: Source) -> GraphSpec:
    """Norms before and after, every second block with a window, soft caps."""
    windows = parts.window_pattern(model, 2)
    if model.value("attention.sliding_window") is None:
        windows = [4096 if i % 2 == 0 else None for i in range(model.n_blocks)]
    return _build(model, windows, soft_cap=model.optional("attn_logit_softcapping"))


def build_gemma3(model: Source) -> GraphSpec:
    """Norms before and after and of each head; five of six blocks have a window and a rotation of their own."""
    return _build(model, parts.window_pattern(model, 6), windowed_base="rope.freq_base_swa", default_windowed_base=10_000.0)


def _build(
    model: Source,
    windows: list[int | None],
    *,
    soft_cap: float | None = None,
    windowed_base: str | None = None,
    default_windowed_base: float = 10_000.0,
) -> GraphSpec:
    def block(i: int) -> Block:
        n_heads, _, k_dim, _ = parts.head_dims(model, i)
        windowed = windowed_base is not None and windows[i] is not None
        rope = parts.rope(model, "neox", k_dim)
        if windowed:
            rope = parts.rope(model, "neox", k_dim, base=model.number(str(windowed_base), default_windowed_base), scaled=False)
        # The 27B models divide the scores by the root of n_embd / n_heads, which is not the length of their heads.
        is_27b = model.n_blocks == _BLOCKS_OF_27B.get(model.architecture)
        scale = 1.0 / math.sqrt(model.n_embd // n_heads) if is_27b else None
        return Block(
            parts.attention(model, i, rope, window=windows[i], scale=scale, soft_cap=soft_cap),
            parts.mlp(model, i, "gelu_tanh"),
            parts.norm(model, f"blk.{i}.attn_norm"),
            parts.norm(model, f"blk.{i}.ffn_norm"),
            parts.optional_norm(model, f"blk.{i}.post_attention_norm"),
            parts.optional_norm(model, f"blk.{i}.post_ffw_norm"),
        )

    blocks = parts.blocks(model, block)
    cap = model.optional("final_logit_softcapping")
    return parts.graph(model, blocks, embedding_scale=math.sqrt(model.n_embd), logit_soft_cap=cap)
