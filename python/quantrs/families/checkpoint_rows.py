"""Rows that several families share: weights as most decoders of transformers name them, keys in the order of the reference converter."""

from typing import TYPE_CHECKING

from quantrs.families.checkpoint_format import Computed, Entry, Key, Setting, Weight
from quantrs.families.rope_scaling import ROPE_SCALING, freq_base

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantrs.families.source import Source
    from quantrs.huggingface.config import Config

__all__ = [
    "EMBEDDINGS",
    "FILE_TYPE",
    "HEAD_DIM",
    "PROJECTIONS",
    "PROJECTIONS_IN_PAIRS",
    "QK_NORMS",
    "SILU",
    "SIZES",
    "expert_mlp",
    "head_dim",
    "head_dim_or",
    "mlp",
    "norm",
    "pre_norms",
    "rotation",
]


def norm(gguf: str, huggingface: str, *, add: float = 0.0, optional: bool = False) -> Weight:
    """A norm's weight, and its bias if it has one."""
    return Weight(gguf, huggingface, vector=True, add=add, optional=optional)


def pre_norms(*, add: float = 0.0) -> tuple[Weight, ...]:
    """Norms before attention and before the MLP, and the last one."""
    return (
        norm("blk.{i}.attn_norm", "model.layers.{i}.input_layernorm", add=add),
        norm("blk.{i}.ffn_norm", "model.layers.{i}.post_attention_layernorm", add=add),
        norm("output_norm", "model.norm", add=add),
    )


EMBEDDINGS = (Weight("token_embd", "model.embed_tokens"), Weight("output", "lm_head", optional=True))

PROJECTIONS = (
    Weight("blk.{i}.attn_q", "model.layers.{i}.self_attn.q_proj"),
    Weight("blk.{i}.attn_k", "model.layers.{i}.self_attn.k_proj"),
    Weight("blk.{i}.attn_v", "model.layers.{i}.self_attn.v_proj"),
    Weight("blk.{i}.attn_output", "model.layers.{i}.self_attn.o_proj"),
)

PROJECTIONS_IN_PAIRS = (
    Weight("blk.{i}.attn_q", "model.layers.{i}.self_attn.q_proj", order="query_heads"),
    Weight("blk.{i}.attn_k", "model.layers.{i}.self_attn.k_proj", order="key_heads"),
    *PROJECTIONS[2:],
)
"""With the rows of queries and keys as llama.cpp's ``normal`` rotation wants them."""

QK_NORMS = (
    norm("blk.{i}.attn_q_norm", "model.layers.{i}.self_attn.q_norm"),
    norm("blk.{i}.attn_k_norm", "model.layers.{i}.self_attn.k_norm"),
)


def mlp(*, optional: bool = False) -> tuple[Weight, ...]:
    """A gated MLP; `optional` where some blocks have experts instead."""
    names = ("gate", "up", "down")
    return tuple(Weight(f"blk.{{i}}.ffn_{name}", f"model.layers.{{i}}.mlp.{name}_proj", optional=optional) for name in names)


def expert_mlp() -> tuple[Weight, ...]:
    """Qwen's experts and their router; the reference stacks them in this order."""
    return (
        Weight("blk.{i}.ffn_gate_inp", "model.layers.{i}.mlp.gate", optional=True),
        *(
            Weight(f"blk.{{i}}.ffn_{name}_exps", f"model.layers.{{i}}.mlp.experts.{{x}}.{name}_proj", optional=True)
            for name in ("down", "gate", "up")
        ),
    )


SIZES = (
    Key("block_count", "num_hidden_layers"),
    Key("context_length", "max_position_embeddings"),
    Key("embedding_length", "hidden_size"),
    Key("feed_forward_length", "intermediate_size"),
    Key("attention.head_count", "num_attention_heads"),
    Key("attention.head_count_kv", "num_key_value_heads", default=lambda config: config.integer("num_attention_heads")),
)


def rotation(default_base: float | None = 10_000.0) -> "tuple[Computed, Computed]":
    """Scaling and base of the rotation."""
    return ROPE_SCALING, freq_base(default_base)


def head_dim(config: "Config") -> int:
    """Values per head: as the file says, or so that all heads together are as wide as the model."""
    return config.integer("head_dim", default=max(1, config.integer("hidden_size") // config.integer("num_attention_heads")))


def _head_dim_to_gguf(config: "Config") -> list[Entry]:
    if config.get("head_dim") is None:
        return []
    length = config.integer("head_dim")
    return [("attention.key_length", length, "u32"), ("attention.value_length", length, "u32")]


def _head_dim_to_config(model: "Source") -> "Mapping[str, object]":
    return {"head_dim": model.integer("attention.key_length")} if model.value("attention.key_length") is not None else {}


def head_dim_or(default: int) -> Computed:
    """For families whose heads are of one length where the configuration says none."""

    def to_gguf(config: "Config") -> list[Entry]:
        length = config.integer("head_dim", default=default)
        return [("attention.key_length", length, "u32"), ("attention.value_length", length, "u32")]

    return Computed(to_gguf, _head_dim_to_config)


HEAD_DIM = Computed(_head_dim_to_gguf, _head_dim_to_config)
"""For families whose configuration need not have one."""

FILE_TYPE = Computed(lambda _config: [("general.file_type", 0, "u32")], lambda _model: {})
"""Where the reference has it; `assemble` fills in the value."""

SILU = Setting("hidden_act", ("silu", "swish"))
