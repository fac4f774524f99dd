"""What a running model takes besides its weights: keys and values of the context, and the buffers of a pass.

Both follow the engine's own allocations: see ``docs/guides/size-a-model.md`` for the formulas and how they were measured.
"""

from collections.abc import Callable

from quantrs.families import GraphSpec
from quantrs.families.spec import Block, Mlp
from quantrs.schemes import row_bytes, tensor_types

__all__ = ["KV_TYPES", "MAX_BATCH_TOKENS", "buffer_bytes", "kv_cache_bytes"]

KV_TYPES = ("f32", "f16", "q8_0", "q4_0")
"""How keys and values may be kept, most precise first."""

MAX_BATCH_TOKENS = 512
"""Tokens that go through the blocks together."""

_SPAN = 256
"""Positions that the cache allocates together; also values of a packed input."""
_SPAN_BYTES = {"int8": 512, "float": 1024}
"""Of a packed input: 256 codes with their scales and sums, or 256 floats."""
_FLOAT = 4


def kv_cache_bytes(graph: GraphSpec, kv_type: str, n_ctx: int) -> int | None:
    """Bytes of keys and values of one sequence that has filled its context; None where the heads are no whole blocks of the type.

    A block with a sliding window keeps all positions too: the engine skips those outside the window, and does not drop them.

    Examples
    --------
    >>> from quantrs import _native
    >>> from quantrs.families import graph_of
    >>> kv_cache_bytes(graph_of(_native.Gguf.open("model.gguf"))[0], "f16", 4096)
    2097152
    """
    block_len = tensor_types()[kv_type.upper()].block_len
    n_positions = -(-n_ctx // _SPAN) * _SPAN
    total = 0
    for block in graph.blocks:
        attention = block.attention
        if attention.k_dim % block_len or attention.v_dim % block_len:
            return None
        per_head = row_bytes(kv_type, attention.k_dim) + row_bytes(kv_type, attention.v_dim)
        total += n_positions * attention.n_kv_heads * per_head
    return total


def buffer_bytes(graph: GraphSpec, n_ctx: int, *, float_weights: bool) -> int:
    """Bytes of what one sequence needs while a prompt goes through: activations of up to 512 tokens, angles, logits.

    `float_weights` says that the matrices are floats, whose inputs are packed as floats. Not counted: about a megabyte of each
    thread's own.
    """
    n_tokens = min(n_ctx, MAX_BATCH_TOKENS)
    span_bytes = _SPAN_BYTES["float" if float_weights else "int8"]

    def packed(n_values: int) -> int:
        return -(-n_values // _SPAN) * span_bytes

    def widest(width: list[int]) -> int:
        return max(width, default=0)

    attentions = [block.attention for block in graph.blocks]
    queries, outputs = widest([a.n_heads * a.k_dim for a in attentions]), widest([a.n_heads * a.v_dim for a in attentions])
    keys_values = widest([a.n_kv_heads * a.k_dim for a in attentions]) + widest([a.n_kv_heads * a.v_dim for a in attentions])
    per_token = _FLOAT * (3 * graph.n_embd + queries + outputs + keys_values) + packed(max(graph.n_embd, outputs))
    per_token += widest([_ffn_bytes(block, graph.n_embd, packed) for block in graph.blocks])
    ropes = {a.rope for a in attentions if a.rope is not None}
    angles = sum(rope.n_dims for rope in ropes) * n_ctx
    return n_tokens * per_token + _FLOAT * (angles + graph.n_vocab + graph.n_embd)


def _ffn_bytes(block: Block, n_embd: int, packed: Callable[[int], int]) -> int:
    """Per token. Of experts: as if all tokens went to one of them."""
    if isinstance(block.ffn, Mlp):
        return _mlp_bytes(block.ffn, packed)
    experts = _mlp_bytes(block.ffn.experts, packed)
    if block.ffn.shared is not None:
        experts = max(experts, _mlp_bytes(block.ffn.shared, packed))
    return experts + _FLOAT * (block.ffn.router.n_rows + 2 * n_embd) + packed(n_embd)


def _mlp_bytes(mlp: Mlp, packed: Callable[[int], int]) -> int:
    n_ff = mlp.up.n_rows
    return _FLOAT * n_ff * (1 if mlp.gate is None else 2) + packed(n_ff)
