"""Which weights of a checkpoint have a bias: what the model's code says, and what its configuration switches on."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantrs.families.checkpoint_format import CheckpointFormat
    from quantrs.huggingface.config import Config

__all__ = ["ALWAYS_BIASED", "SWITCHED", "biased_weights"]

_QKV = ("blk.{i}.attn_q", "blk.{i}.attn_k", "blk.{i}.attn_v")

ALWAYS_BIASED: Mapping[str, tuple[str, ...]] = {
    "gpt2": (
        *("blk.{i}.attn_norm", "blk.{i}.ffn_norm", "output_norm", "blk.{i}.attn_qkv"),
        *("blk.{i}.attn_output", "blk.{i}.ffn_up", "blk.{i}.ffn_down"),
    ),
    "qwen2": _QKV,
    "qwen2_moe": _QKV,
}
"""GGUF's names by ``model_type``: biases in transformers' code of the model, whatever the configuration says."""


SWITCHED: Mapping[str, tuple[str, ...]] = {
    "attention_bias": (*_QKV, "blk.{i}.attn_output"),
    "mlp_bias": ("blk.{i}.ffn_gate", "blk.{i}.ffn_up", "blk.{i}.ffn_down"),
}
"""GGUF's names by the key of the configuration that gives all of them a bias."""


def biased_weights(config: "Config", format_: "CheckpointFormat") -> set[str]:
    """GGUF's names, with ``{i}`` for the block, of the weights that have a bias in a model of this configuration."""
    always = ALWAYS_BIASED.get(format_.model_type)
    if always is not None:
        return set(always)
    return {name for key, names in SWITCHED.items() if config.flag(key) for name in names}
