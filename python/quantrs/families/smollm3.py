"""SmolLM 3: Llama without rotation in every fourth block."""

from typing import TYPE_CHECKING

from quantrs.families import checkpoint_rows as rows
from quantrs.families import parts
from quantrs.families.checkpoint_format import CheckpointFormat, Computed, Entry, Key
from quantrs.families.llama import LLAMA_WEIGHTS, VOCABULARY_AND_ROTATION
from quantrs.families.source import Source
from quantrs.families.spec import Block, GraphSpec

if TYPE_CHECKING:
    from quantrs.huggingface.config import Config

_PERIOD = 4  # fixed in llama.cpp too


def build(model: Source) -> GraphSpec:
    """As Llama; blocks 3, 7, 11 ... see no positions."""

    def block(i: int) -> Block:
        _, _, k_dim, _ = parts.head_dims(model, i)
        rope = parts.rope(model, "normal", k_dim) if _is_rotated(i) else None
        return Block(
            parts.attention(model, i, rope, scale=model.optional("attention.scale")),
            parts.mlp(model, i, "silu"),
            parts.norm(model, f"blk.{i}.attn_norm"),
            parts.norm(model, f"blk.{i}.ffn_norm"),
        )

    return parts.graph(model, parts.blocks(model, block))


def _is_rotated(i: int) -> bool:
    return (i + 1) % _PERIOD != 0


def _check_rotated_blocks(config: "Config") -> list[Entry]:
    """No key says which blocks are rotated, nor that some have a window."""
    n_blocks = config.integer("num_hidden_layers")
    stated = config.items("no_rope_layers")
    if stated is not None:
        if len(stated) != n_blocks or [bool(flag) for flag in stated] != [_is_rotated(i) for i in range(len(stated))]:
            raise config.unsupported("'no_rope_layers' with another pattern than every fourth")
    elif config.integer("no_rope_layer_interval", default=_PERIOD) != _PERIOD:
        raise config.unsupported(f"'no_rope_layer_interval' other than {_PERIOD}")
    if config.flag("use_sliding_window"):
        raise config.unsupported("'use_sliding_window'")
    return []


def _rotated_blocks(model: Source) -> dict[str, object]:
    return {
        "no_rope_layer_interval": _PERIOD,
        "no_rope_layers": [int(_is_rotated(i)) for i in range(model.n_blocks)],
        "use_sliding_window": False,
    }


FORMATS = (
    CheckpointFormat(
        model_type="smollm3",
        model_class="SmolLM3ForCausalLM",
        weights=LLAMA_WEIGHTS,
        keys=(
            *rows.SIZES,
            *rows.rotation(2_000_000.0),
            Key("attention.layer_norm_rms_epsilon", "rms_norm_eps", "f32", default=1e-6),
            rows.HEAD_DIM,
            rows.FILE_TYPE,
            *VOCABULARY_AND_ROTATION,
            Computed(_check_rotated_blocks, _rotated_blocks),
        ),
        settings=(rows.SILU,),
    ),
)
