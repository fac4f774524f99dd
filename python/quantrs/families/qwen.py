"""Qwen 2 and 3 with one MLP per block; Qwen 3 norms each head of queries and keys, as its tensors say."""

from quantrs.families import checkpoint_rows as rows
from quantrs.families import parts, windows
from quantrs.families.checkpoint_format import CheckpointFormat, Key
from quantrs.families.source import Source
from quantrs.families.spec import Block, GraphSpec


def build(model: Source) -> GraphSpec:
    """As Llama, with the halves of a head rotated, biases where the file has them, and windows where it says so."""
    block_windows = parts.window_pattern(model, 0)

    def block(i: int) -> Block:
        _, _, k_dim, _ = parts.head_dims(model, i)
        return Block(
            parts.attention(model, i, parts.rope(model, "neox", k_dim), window=block_windows[i]),
            parts.mlp(model, i, "silu"),
            parts.norm(model, f"blk.{i}.attn_norm"),
            parts.norm(model, f"blk.{i}.ffn_norm"),
        )

    return parts.graph(model, parts.blocks(model, block))


EPSILON = Key("attention.layer_norm_rms_epsilon", "rms_norm_eps", "f32", default=1e-6)

QWEN2 = CheckpointFormat(
    model_type="qwen2",
    model_class="Qwen2ForCausalLM",
    weights=(*rows.EMBEDDINGS, *rows.pre_norms(), *rows.PROJECTIONS, *rows.mlp()),
    keys=(*rows.SIZES, *rows.rotation(), EPSILON, rows.HEAD_DIM, rows.FILE_TYPE, windows.late_blocks_with_window),
    settings=(rows.SILU,),
)

QWEN3 = CheckpointFormat(
    model_type="qwen3",
    model_class="Qwen3ForCausalLM",
    weights=(*rows.EMBEDDINGS, *rows.pre_norms(), *rows.PROJECTIONS, *rows.QK_NORMS, *rows.mlp()),
    keys=(*rows.SIZES, *rows.rotation(), EPSILON, rows.head_dim_or(128), rows.FILE_TYPE, windows.late_blocks_with_window),
    settings=(rows.SILU,),
)
