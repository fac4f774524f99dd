"""Qwen 2 MoE, whose shared expert has a gate and whose weights do not sum to 1, and Qwen 3 MoE, whose weights do."""

from typing import TYPE_CHECKING

from quantrs.families import checkpoint_rows as rows
from quantrs.families import parts, windows
from quantrs.families.checkpoint_format import CheckpointFormat, Computed, Entry, Key, Weight
from quantrs.families.qwen import EPSILON
from quantrs.families.source import Source
from quantrs.families.spec import Block, GraphSpec

if TYPE_CHECKING:
    from quantrs.huggingface.config import Config

_RENORMALIZE = "expert_weights_norm"


def build_qwen2moe(model: Source) -> GraphSpec:
    """Experts and a shared one."""
    shared_n_ff = model.integer("expert_shared_feed_forward_length", model.integer("feed_forward_length"))
    return _build(model, renormalize=model.flag(_RENORMALIZE), shared_n_ff=shared_n_ff)


def build_qwen3moe(model: Source) -> GraphSpec:
    """Experts alone."""
    return _build(model, renormalize=model.flag(_RENORMALIZE, default=True), shared_n_ff=None)


def _build(model: Source, *, renormalize: bool, shared_n_ff: int | None) -> GraphSpec:
    block_windows = parts.window_pattern(model, 0)

    def block(i: int) -> Block:
        _, _, k_dim, _ = parts.head_dims(model, i)
        has_experts = _has_experts(model, i)
        return Block(
            parts.attention(model, i, parts.rope(model, "neox", k_dim), window=block_windows[i]),
            parts.moe(model, i, renormalize=renormalize, shared_n_ff=shared_n_ff) if has_experts else parts.mlp(model, i, "silu"),
            parts.norm(model, f"blk.{i}.attn_norm"),
            parts.norm(model, f"blk.{i}.ffn_norm"),
        )

    return parts.graph(model, parts.blocks(model, block))


def _has_experts(model: Source, i: int) -> bool:
    return not model.has(f"blk.{i}.ffn_up.weight")


def _renormalization(implied: bool, default: bool) -> Computed:
    """``norm_topk_prob``, written only where llama.cpp's fixed choice is another; `default` is transformers'."""

    def to_gguf(config: "Config") -> list[Entry]:
        stated = config.flag("norm_topk_prob", default=default)
        return [] if stated == implied else [(_RENORMALIZE, stated, "bool")]

    return Computed(to_gguf, lambda model: {"norm_topk_prob": model.flag(_RENORMALIZE, default=implied)})


def _dense_blocks(model: Source) -> dict[str, object]:
    return {"decoder_sparse_step": 1, "mlp_only_layers": [i for i in range(model.n_blocks) if not _has_experts(model, i)]}


_EXPERT_COUNTS = (Key("expert_count", ("num_experts", "num_local_experts")), Key("expert_used_count", "num_experts_per_tok"))
_EXPERT_SIZE = Key("expert_feed_forward_length", "moe_intermediate_size")
_DENSE_BLOCKS = Computed(lambda _config: [], _dense_blocks)
_KEYS = (*rows.SIZES, *rows.rotation(), EPSILON, *_EXPERT_COUNTS)
_WEIGHTS = (*rows.EMBEDDINGS, *rows.pre_norms(), *rows.PROJECTIONS, *rows.mlp(optional=True), *rows.expert_mlp())

QWEN2_MOE = CheckpointFormat(
    model_type="qwen2_moe",
    model_class="Qwen2MoeForCausalLM",
    weights=(
        *_WEIGHTS,
        Weight("blk.{i}.ffn_gate_shexp", "model.layers.{i}.mlp.shared_expert.gate_proj", optional=True),
        Weight("blk.{i}.ffn_up_shexp", "model.layers.{i}.mlp.shared_expert.up_proj", optional=True),
        Weight("blk.{i}.ffn_down_shexp", "model.layers.{i}.mlp.shared_expert.down_proj", optional=True),
        Weight("blk.{i}.ffn_gate_inp_shexp", "model.layers.{i}.mlp.shared_expert_gate", optional=True),
    ),
    keys=(
        *_KEYS,
        rows.HEAD_DIM,
        rows.FILE_TYPE,
        _EXPERT_SIZE,
        Key("expert_shared_feed_forward_length", "shared_expert_intermediate_size"),
        _renormalization(implied=False, default=False),
        _DENSE_BLOCKS,
        windows.late_blocks_with_window,
    ),
    settings=(rows.SILU,),
)

QWEN3_MOE = CheckpointFormat(
    model_type="qwen3_moe",
    model_class="Qwen3MoeForCausalLM",
    weights=(*_WEIGHTS, *rows.QK_NORMS),
    keys=(
        *_KEYS,
        rows.HEAD_DIM,
        rows.FILE_TYPE,
        _EXPERT_SIZE,
        _renormalization(implied=True, default=False),
        _DENSE_BLOCKS,
        windows.late_blocks_with_window,
    ),
    settings=(rows.SILU,),
)
