"""Where a model allows its weights' columns to be scaled without changing what it computes.

AWQ and SmoothQuant multiply the columns of a linear by s, one number per input channel, before it is quantized. The input has to be
divided by s, which costs nothing where whatever makes the input is linear in it too: the weight of a norm, or the rows of the linear
before. A `ScaleGroup` names both sides; `quantrs.calibration.folding` moves the numbers.

Which pairs there are follows from the graph alone, so that every family gets them:

- norm -> q, k, v; norm -> gate, up (with experts: those of all experts, the shared one's, and the router, which is never quantized but
  reads the same input). A block whose norms come after, as in OLMo 2, has neither.
- rows of v -> attention output: the heads' outputs are sums of values. With grouped-query attention a value feeds the query heads
  of its group, which have to share its scale.
- rows of up -> down, per expert: the gate multiplies elementwise. Without a gate there is an activation in between, and only ReLU lets a
  positive factor pass.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from quantrs.families.spec import Block, Linear, Mlp, Norm

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["ScaleGroup", "scale_groups"]


@dataclass(frozen=True)
class ScaleGroup:
    """Linears that read one input, and what that input can be divided in.

    A scale is per row of the feeder: `n_scales` numbers. `expand` repeats them where several input channels share one.
    """

    feeder: Norm | Linear
    """The norm, or the linear whose rows (and bias) are divided by the scales."""
    readers: tuple[Linear, ...]
    """All that is to be quantized among what reads the input. A fused matrix stands here as its row ranges: one tensor, several times."""
    kept: tuple[Linear, ...]
    """Readers that stay as they are stored (routers), but whose columns are multiplied too."""
    inspect: Literal["linear", "gated"]
    """``gated``: the readers are a gate and an up, whose outputs only matter as act(gate) * up."""
    expert: int | None = None
    """Of the feeder's and the readers' tensors only this expert's matrix; None: all of them."""
    n_queries: int = 1
    """Query heads that share a value head (feeder: v), 1 elsewhere."""
    head_dim: int = 0
    """Values per head where `n_queries` is not 1."""

    @property
    def n_channels(self) -> int:
        """Channels of the input."""
        return self.readers[0].n_cols

    @property
    def n_scales(self) -> int:
        """Scales that can be chosen freely."""
        return self.n_channels // self.n_queries

    def expand(self, s: "npt.NDArray[np.float32]") -> "npt.NDArray[np.float32]":
        """Return the scale of every input channel, ``[n_channels]``, from those of the feeder's rows, ``[n_scales]``."""
        if self.n_queries == 1:
            return s
        heads = s.reshape(-1, 1, self.head_dim).repeat(self.n_queries, axis=1)
        return heads.reshape(-1)

    def shared(self, per_channel: "npt.NDArray[np.float32]") -> "npt.NDArray[np.float32]":
        """Return ``[n_queries, n_scales]``: for each scale what `per_channel`, ``[n_channels]``, says of the channels that share it."""
        if self.n_queries == 1:
            return per_channel.reshape(1, -1)
        heads = per_channel.reshape(-1, self.n_queries, self.head_dim)
        return heads.swapaxes(0, 1).reshape(self.n_queries, -1)


def scale_groups(block: Block) -> tuple[ScaleGroup, ...]:
    """Every scale group of a block, in the order in which the block computes.

    Scales of different groups do not touch the same axis of a tensor, so they may be chosen and folded in any order.

    Examples
    --------
    >>> from quantrs.families.scale_groups import scale_groups
    >>> from quantrs.families.spec import Attention, Block, Linear, Mlp, Norm
    >>> def linear(name, rows, cols):
    ...     return Linear(f"blk.0.{name}.weight", None, cols, rows, rows)
    >>> q, k, v, out = (linear(f"attn_{n}", 8, 8) for n in ("q", "k", "v", "output"))
    >>> mlp = Mlp("silu", linear("ffn_gate", 16, 8), linear("ffn_up", 16, 8), linear("ffn_down", 8, 16))
    >>> norm = Norm("rms", "blk.0.attn_norm.weight", None, 1e-5)
    >>> for group in scale_groups(Block(Attention(2, 2, 4, 4, q, k, v, out, 0.5, None), mlp, norm, None)):
    ...     print(getattr(group.feeder, "weight", "rows"), [reader.tensor for reader in group.readers])
    blk.0.attn_norm.weight ['blk.0.attn_q.weight', 'blk.0.attn_k.weight', 'blk.0.attn_v.weight']
    rows ['blk.0.attn_output.weight']
    rows ['blk.0.ffn_down.weight']
    """
    return tuple(_groups(block))


def _groups(block: Block) -> Iterator[ScaleGroup]:
    attention = block.attention
    if block.attn_norm is not None:
        yield ScaleGroup(block.attn_norm, (attention.q, attention.k, attention.v), (), "linear")
    n_queries = attention.n_heads // attention.n_kv_heads
    head_dim = attention.v_dim if n_queries != 1 else 0
    yield ScaleGroup(attention.v, (attention.out,), (), "linear", n_queries=n_queries, head_dim=head_dim)
    ffn = block.ffn
    if isinstance(ffn, Mlp):
        if block.ffn_norm is not None:
            yield ScaleGroup(block.ffn_norm, _inner(ffn), (), "gated" if ffn.gate else "linear")
        yield from _down(ffn)
        return
    mlps = [mlp for mlp in (ffn.experts, ffn.shared) if mlp is not None]
    if block.ffn_norm is not None:
        readers = [linear for mlp in mlps for linear in _inner(mlp)]
        kept = [linear for linear in (ffn.router, ffn.shared_gate) if linear is not None]
        yield ScaleGroup(block.ffn_norm, tuple(readers), tuple(kept), "linear")
    for mlp in mlps:
        yield from _down(mlp)


def _inner(mlp: Mlp) -> tuple[Linear, ...]:
    return (mlp.up,) if mlp.gate is None else (mlp.gate, mlp.up)


def _down(mlp: Mlp) -> Iterator[ScaleGroup]:
    if mlp.gate is None and mlp.activation != "relu":
        return
    n_experts = mlp.up.n_matrices
    for expert in range(n_experts):
        yield ScaleGroup(mlp.up, (mlp.down,), (), "linear", expert=expert if n_experts > 1 else None)
