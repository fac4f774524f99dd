"""Granite 3: Llama with factors of embeddings, scores, residuals and logits in the metadata."""

from typing import TYPE_CHECKING

from quantrs.families import checkpoint_rows as rows
from quantrs.families import parts
from quantrs.families.checkpoint_format import CheckpointFormat, Computed, Entry, Key
from quantrs.families.llama import LLAMA_WEIGHTS
from quantrs.families.source import Source
from quantrs.families.spec import Block, GraphSpec

if TYPE_CHECKING:
    from quantrs.huggingface.config import Config


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


def _dimension_count(config: "Config") -> list[Entry]:
    return [("rope.dimension_count", config.integer("hidden_size") // config.integer("num_attention_heads"), "u32")]


FORMATS = (
    CheckpointFormat(
        model_type="granite",
        model_class="GraniteForCausalLM",
        weights=LLAMA_WEIGHTS,
        keys=(
            *rows.SIZES,
            *rows.rotation(),
            Key("attention.layer_norm_rms_epsilon", "rms_norm_eps", "f32", default=1e-6),
            rows.FILE_TYPE,
            Key("vocab_size", "vocab_size"),
            Computed(_dimension_count, lambda _model: {}),
            Key("attention.scale", "attention_multiplier", "f32", default=1.0),
            Key("embedding_scale", "embedding_multiplier", "f32", default=1.0),
            Key("residual_scale", "residual_multiplier", "f32", default=1.0),
            Key("logit_scale", "logits_scaling", "f32", default=1.0),
        ),
        settings=(rows.SILU,),
    ),
)
