"""Gemma 1 to 3. Converters add the 1 of Gemma's norms to their weights."""

import math
from typing import TYPE_CHECKING

from quantrs.families import checkpoint_rows as rows
from quantrs.families import parts, windows
from quantrs.families.checkpoint_format import CheckpointFormat, Computed, Entry, Key, Setting, Weight, shortest_float32
from quantrs.families.source import Source
from quantrs.families.spec import Block, GraphSpec

if TYPE_CHECKING:
    from quantrs.huggingface.config import Config

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


def _implied_divisor(architecture: str, n_blocks: int, n_embd: int, n_heads: int, head_dim: int) -> int:
    """Whose root the scores are divided by: the length of a head, but in the 27B models n_embd / n_heads."""
    return n_embd // n_heads if n_blocks == _BLOCKS_OF_27B.get(architecture) else head_dim


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
        implied = 1.0 / math.sqrt(_implied_divisor(model.architecture, model.n_blocks, model.n_embd, n_heads, k_dim))
        scale = model.optional("attention.scale") or implied
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


def _weights(*more: str) -> tuple[Weight, ...]:
    """Weights with a norm's 1 added; `more` names the norms besides those before attention and MLP."""
    before_mlp = "pre_feedforward_layernorm" if more else "post_attention_layernorm"
    norms = {
        "blk.{i}.attn_norm": "input_layernorm",
        "blk.{i}.ffn_norm": before_mlp,
        "blk.{i}.post_attention_norm": "post_attention_layernorm",
        "blk.{i}.post_ffw_norm": "post_feedforward_layernorm",
        "blk.{i}.attn_q_norm": "self_attn.q_norm",
        "blk.{i}.attn_k_norm": "self_attn.k_norm",
    }
    kept = ("blk.{i}.attn_norm", "blk.{i}.ffn_norm", *more)
    return (
        Weight("token_embd", "model.embed_tokens"),
        rows.norm("output_norm", "model.norm", add=1.0),
        *(rows.norm(name, f"model.layers.{{i}}.{norms[name]}", add=1.0) for name in kept),
        *rows.PROJECTIONS,
        *rows.mlp(),
    )


_POST_NORMS = ("blk.{i}.post_attention_norm", "blk.{i}.post_ffw_norm")
_QK_NORMS = ("blk.{i}.attn_q_norm", "blk.{i}.attn_k_norm")


def _soft_cap(name: str, default: float | None) -> Computed:
    """A cap that null switches off."""

    def to_gguf(config: "Config") -> list[Entry]:
        cap = config.optional_number(name) if name in config.values else default
        return [(name, cap, "f32")] if cap else []

    def to_config(model: Source) -> dict[str, object]:
        cap = model.optional(name)
        return {name: None if cap is None else shortest_float32(cap)}

    return Computed(to_gguf, to_config)


def _score_scale(architecture: str) -> Computed:
    """``query_pre_attn_scalar``: a key only where it is not what llama.cpp takes for granted."""

    def to_gguf(config: "Config") -> list[Entry]:
        divisor = config.number("query_pre_attn_scalar", default=256.0, at_least=1e-6)
        n_heads = config.integer("num_attention_heads", default=8)
        head_dim = config.integer("head_dim", default=256)
        sizes = config.integer("num_hidden_layers"), config.integer("hidden_size"), n_heads, head_dim
        return [] if divisor == _implied_divisor(architecture, *sizes) else [("attention.scale", divisor**-0.5, "f32")]

    def to_config(model: Source) -> dict[str, object]:
        scale = model.optional("attention.scale")
        if scale is not None:
            divisor = scale**-2
            return {"query_pre_attn_scalar": round(divisor) if abs(divisor - round(divisor)) < 1e-4 * divisor else divisor}
        n_heads, _, k_dim, _ = parts.head_dims(model, 0)
        return {"query_pre_attn_scalar": _implied_divisor(architecture, model.n_blocks, model.n_embd, n_heads, k_dim)}

    return Computed(to_gguf, to_config)


def _local_base(config: "Config") -> list[Entry]:
    parameters = config.part("rope_parameters")
    sliding = parameters.part("sliding_attention") if parameters else None
    inside = sliding.optional_number("rope_theta") if sliding else None
    return [("rope.freq_base_swa", config.number("rope_local_base_freq", default=inside or 10_000.0), "f32")]


def _local_base_to_config(model: Source) -> dict[str, object]:
    return {"rope_local_base_freq": shortest_float32(model.number("rope.freq_base_swa", 10_000.0))}


def _base(config: "Config") -> list[Entry]:
    """The reference converter writes none, so that 10000 is taken; another one is written."""
    base = config.number("rope_theta", default=10_000.0, at_least=1e-6)
    return [] if base == 10_000.0 else [("rope.freq_base", base, "f32")]


_BASE = Computed(_base, lambda model: {"rope_theta": shortest_float32(model.number("rope.freq_base", 10_000.0))})
_EPSILON = Key("attention.layer_norm_rms_epsilon", "rms_norm_eps", "f32", default=1e-6)
_HEAD_DIM = rows.head_dim_or(256)
_SIZES = (
    Key("context_length", "max_position_embeddings"),
    Key("embedding_length", "hidden_size"),
    Key("block_count", "num_hidden_layers"),
    Key("feed_forward_length", "intermediate_size"),
    Key("attention.head_count", "num_attention_heads"),
    Key("attention.head_count_kv", "num_key_value_heads", default=lambda config: config.integer("num_attention_heads")),
)
_GELU = ("gelu_pytorch_tanh", "gelu_new")

GEMMA = CheckpointFormat(
    model_type="gemma",
    model_class="GemmaForCausalLM",
    weights=_weights(),
    keys=(*_SIZES, _EPSILON, _HEAD_DIM, rows.FILE_TYPE, _BASE),
    # "gelu" in the first files: transformers computes the approximation by tanh for it.
    settings=(Setting("hidden_activation", _GELU), Setting("hidden_act", (*_GELU, "gelu"))),
    drops=("lm_head",),
)

GEMMA2 = CheckpointFormat(
    model_type="gemma2",
    model_class="Gemma2ForCausalLM",
    weights=_weights(*_POST_NORMS),
    keys=(
        *_SIZES,
        _EPSILON,
        _HEAD_DIM,
        rows.FILE_TYPE,
        _soft_cap("attn_logit_softcapping", 50.0),
        _soft_cap("final_logit_softcapping", 30.0),
        windows.every_nth_sees_all(2, 4096),
        _score_scale("gemma2"),
        _BASE,
    ),
    settings=(Setting("hidden_activation", _GELU),),
    drops=("lm_head",),
)

GEMMA3 = CheckpointFormat(
    model_type="gemma3_text",
    model_class="Gemma3ForCausalLM",
    other_model_types=("gemma3",),
    weights=_weights(*_POST_NORMS, *_QK_NORMS),
    keys=(
        Key("block_count", "num_hidden_layers"),
        Key("context_length", "max_position_embeddings", default=131_072),
        Key("embedding_length", "hidden_size"),
        Key("feed_forward_length", "intermediate_size"),
        Key("attention.head_count", "num_attention_heads", default=8),
        Key("attention.head_count_kv", "num_key_value_heads", default=4),
        *rows.rotation(1_000_000.0),
        Computed(_local_base, _local_base_to_config),
        _EPSILON,
        _HEAD_DIM,
        rows.FILE_TYPE,
        _soft_cap("final_logit_softcapping", None),
        windows.every_nth_sees_all(6, 4096),
        _score_scale("gemma3"),
    ),
    settings=(Setting("hidden_activation", _GELU), Setting("use_bidirectional_attention", (False,))),
    drops=("lm_head",),
)
