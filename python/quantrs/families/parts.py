"""Parts that several families share, by the tensor names that GGUF converters write."""

import math
from collections.abc import Callable
from typing import Literal

from quantrs.families.source import Source
from quantrs.families.spec import Activation, Attention, Block, GraphSpec, Linear, Mlp, Moe, Norm, Rope, RopeScaling

__all__ = ["attention", "blocks", "graph", "linear", "mlp", "moe", "norm", "optional_norm", "rope", "window_pattern"]


def norm(model: Source, name: str) -> Norm:
    """RMSNorm, or LayerNorm where the metadata has its epsilon."""
    eps = model.value("attention.layer_norm_rms_epsilon")
    if eps is None:
        bias = f"{name}.bias"
        return Norm("layer", f"{name}.weight", bias if model.has(bias) else None, model.number("attention.layer_norm_epsilon"))
    return Norm("rms", f"{name}.weight", None, model.number("attention.layer_norm_rms_epsilon"))


def optional_norm(model: Source, name: str) -> Norm | None:
    """The norm if the file has it."""
    return norm(model, name) if model.has(f"{name}.weight") else None


def linear(
    model: Source, name: str, n_rows: int, n_cols: int, *, tensor_rows: int | None = None, first_row: int = 0, n_matrices: int = 1
) -> Linear:
    """A matrix ``[n_rows, n_cols]`` with its bias if the file has one."""
    bias = f"{name}.bias"
    return Linear(f"{name}.weight", bias if model.has(bias) else None, n_cols, n_rows, tensor_rows or n_rows, first_row, n_matrices)


def rope(model: Source, style: Literal["normal", "neox"], n_dims: int, *, base: float | None = None, scaled: bool = True) -> Rope:
    """Rotation with the base and the scaling that the metadata asks for; `scaled` False leaves the scaling out."""
    n_dims = model.integer("rope.dimension_count", n_dims)
    base = base or model.number("rope.freq_base", 10_000.0)
    kind = model.text("rope.scaling.type", "linear")
    factor = model.number("rope.scaling.factor", model.number("rope.scale_linear", 1.0)) or 1.0
    magnitude = model.number("rope.scaling.attn_factor", 1.0)
    factors = "rope_freqs.weight" if model.has("rope_freqs.weight") else None
    if kind not in ("none", "linear", "yarn", "longrope"):
        raise model.unsupported(f"rope.scaling.type {kind!r}")
    scaling = None
    if scaled and kind == "linear" and factor != 1.0:
        scaling = RopeScaling("linear", factor)
    elif scaled and kind == "yarn":
        original = model.integer("rope.scaling.original_context_length", model.n_ctx_train)
        beta_fast = model.number("rope.scaling.yarn_beta_fast", 32.0)
        scaling = RopeScaling("yarn", factor, original, beta_fast, model.number("rope.scaling.yarn_beta_slow", 1.0))
        # Peng et al. 2023 (arXiv 2309.00071), section 3.4: sharper attention for longer contexts.
        magnitude *= 1.0 + 0.1 * math.log(max(factor, 1.0))
    return Rope(style, n_dims, base, scaling, magnitude, factors)


def head_dims(model: Source, i: int) -> tuple[int, int, int, int]:
    """Query heads, key/value heads, values per key and per value of block `i`."""
    n_heads = model.of_block("attention.head_count", i)
    n_kv_heads = model.of_block("attention.head_count_kv", i, n_heads)
    k_dim = model.integer("attention.key_length", max(1, model.n_embd // n_heads))
    return n_heads, n_kv_heads, k_dim, model.integer("attention.value_length", k_dim)


def attention(
    model: Source, i: int, rope: Rope | None, *, window: int | None = None, scale: float | None = None, soft_cap: float | None = None
) -> Attention:
    """Attention of block `i`: separate or fused projections, biases and norms of queries and keys as the file has them."""
    n_heads, n_kv_heads, k_dim, v_dim = head_dims(model, i)
    n_q, n_k, n_v = n_heads * k_dim, n_kv_heads * k_dim, n_kv_heads * v_dim
    prefix = f"blk.{i}.attn_"
    if model.has(f"{prefix}qkv.weight"):
        rows = (n_q, n_k, n_v)
        q, k, v = (
            linear(model, f"{prefix}qkv", n, model.n_embd, tensor_rows=sum(rows), first_row=sum(rows[:j])) for j, n in enumerate(rows)
        )
    else:
        q, k, v = (linear(model, f"{prefix}{name}", n, model.n_embd) for name, n in (("q", n_q), ("k", n_k), ("v", n_v)))
    return Attention(
        n_heads,
        n_kv_heads,
        k_dim,
        v_dim,
        q,
        k,
        v,
        linear(model, f"{prefix}output", model.n_embd, n_heads * v_dim),
        1.0 / math.sqrt(k_dim) if scale is None else scale,
        rope,
        optional_norm(model, f"{prefix}q_norm"),
        optional_norm(model, f"{prefix}k_norm"),
        window,
        soft_cap,
        f"{prefix}sinks.weight" if model.has(f"{prefix}sinks.weight") else None,
    )


def mlp(model: Source, i: int, activation: Activation, *, suffix: str = "", n_ff: int | None = None, n_experts: int = 1) -> Mlp:
    """The MLP of block `i`: with a gate of its own, one fused with `up`, or none, as the file has it."""
    n_ff = n_ff or model.of_block("feed_forward_length", i)
    prefix = f"blk.{i}.ffn_"
    down = linear(model, f"{prefix}down{suffix}", model.n_embd, n_ff, n_matrices=n_experts)
    up = linear(model, f"{prefix}up{suffix}", n_ff, model.n_embd, n_matrices=n_experts)
    gate = (
        linear(model, f"{prefix}gate{suffix}", n_ff, model.n_embd, n_matrices=n_experts)
        if model.has(f"{prefix}gate{suffix}.weight")
        else None
    )
    return Mlp(activation, gate, up, down)


def fused_mlp(model: Source, i: int, activation: Activation) -> Mlp:
    """An MLP whose gate is the first half of the rows of ``ffn_up``."""
    n_ff = model.of_block("feed_forward_length", i)
    name = f"blk.{i}.ffn_up"
    gate, up = (linear(model, name, n_ff, model.n_embd, tensor_rows=2 * n_ff, first_row=first) for first in (0, n_ff))
    return Mlp(activation, gate, up, linear(model, f"blk.{i}.ffn_down", model.n_embd, n_ff))


def moe(model: Source, i: int, *, renormalize: bool, shared_n_ff: int | None = None) -> Moe:
    """The experts of block `i`."""
    n_experts = model.integer("expert_count")
    n_ff = model.integer("expert_feed_forward_length", model.of_block("feed_forward_length", i))
    shared = mlp(model, i, "silu", suffix="_shexp", n_ff=shared_n_ff) if shared_n_ff else None
    gate = f"blk.{i}.ffn_gate_inp_shexp"
    return Moe(
        linear(model, f"blk.{i}.ffn_gate_inp", n_experts, model.n_embd),
        "softmax",
        model.integer("expert_used_count"),
        renormalize,
        mlp(model, i, "silu", suffix="_exps", n_ff=n_ff, n_experts=n_experts),
        shared=shared,
        shared_gate=linear(model, gate, 1, model.n_embd) if shared and model.has(f"{gate}.weight") else None,
    )


def window_pattern(model: Source, period: int) -> list[int | None]:
    """The window of each block: every `period`-th sees all, unless the metadata names another pattern or no window."""
    window = model.integer("attention.sliding_window", 0, at_least=0) or None
    pattern = model.value("attention.sliding_window_pattern")
    if isinstance(pattern, list) and len(pattern) >= model.n_blocks:
        return [window if pattern[i] else None for i in range(model.n_blocks)]
    period = model.integer("attention.sliding_window_pattern", period, at_least=0)
    return [window if period == 0 or i % period < period - 1 else None for i in range(model.n_blocks)]


def blocks(model: Source, block: Callable[[int], Block]) -> tuple[Block, ...]:
    """Every block, from 0."""
    return tuple(block(i) for i in range(model.n_blocks))


def graph(
    model: Source,
    blocks: tuple[Block, ...],
    *,
    position_embd: str | None = None,
    embedding_scale: float = 1.0,
    logit_scale: float = 1.0,
    logit_soft_cap: float | None = None,
) -> GraphSpec:
    """The whole model; the output is the embedding where the file has no other."""
    name = "output" if model.has("output.weight") else "token_embd"
    return GraphSpec(
        model.n_vocab,
        model.n_embd,
        model.n_ctx_train,
        blocks,
        norm(model, "output_norm"),
        linear(model, name, model.n_vocab, model.n_embd),
        position_embd=position_embd,
        embedding_scale=embedding_scale,
        logit_scale=logit_scale,
        logit_soft_cap=logit_soft_cap,
    )
