"""OLMo 2 and 3: norms after attention and MLP instead of before, and over all heads of queries and keys at once."""

from quantrs.families import checkpoint_rows as rows
from quantrs.families import parts, windows
from quantrs.families.checkpoint_format import CheckpointFormat, Key
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


_WEIGHTS = (
    *rows.EMBEDDINGS,
    rows.norm("output_norm", "model.norm"),
    rows.norm("blk.{i}.post_attention_norm", "model.layers.{i}.post_attention_layernorm"),
    rows.norm("blk.{i}.post_ffw_norm", "model.layers.{i}.post_feedforward_layernorm"),
    *rows.PROJECTIONS,
    *rows.QK_NORMS,
    *rows.mlp(),
)
_KEYS = (
    *rows.SIZES,
    *rows.rotation(),
    Key("attention.layer_norm_rms_epsilon", "rms_norm_eps", "f32", default=1e-5),
    rows.HEAD_DIM,
    rows.FILE_TYPE,
)

OLMO2 = CheckpointFormat(model_type="olmo2", model_class="Olmo2ForCausalLM", weights=_WEIGHTS, keys=_KEYS, settings=(rows.SILU,))

OLMO3 = CheckpointFormat(
    model_type="olmo3",
    model_class="Olmo3ForCausalLM",
    weights=_WEIGHTS,
    keys=(*_KEYS, windows.every_nth_sees_all(4, 4096, always_listed=True)),
    settings=(rows.SILU,),
    fits=lambda model: model.value("attention.sliding_window") is not None,
)
