"""Which linears of a block read the same input, so that its statistics are gathered once."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from quantrs.families.spec import Mlp

if TYPE_CHECKING:
    from quantrs.families.spec import Block
    from quantrs.quantizing.linears import Place

__all__ = ["InputKey", "input_keys", "trace_name"]

InputKey = tuple[str, int | None]
"""The place that is traced for an input."""


def input_keys(block: "Block") -> "dict[Place, InputKey]":
    """For every linear of the block the one that stands for its input; those of all experts have their router's tokens each."""
    return dict(_pairs(block))


def trace_name(key: InputKey) -> str:
    """As `quantrs.calibration.blocks.Block.trace` calls it."""
    tensor, expert = key
    return tensor if expert is None else f"{tensor}[{expert}]"


def _pairs(block: "Block") -> "Iterator[tuple[Place, InputKey]]":
    attention, ffn = block.attention, block.ffn
    for linear in (attention.q, attention.k, attention.v):
        yield (linear.tensor, None), (attention.q.tensor, None)
    yield (attention.out.tensor, None), (attention.out.tensor, None)
    if isinstance(ffn, Mlp):
        yield from _of_mlp(ffn)
        return
    yield (ffn.router.tensor, None), (ffn.router.tensor, None)
    yield from _of_mlp(ffn.experts)
    if ffn.shared is not None:
        yield from _of_mlp(ffn.shared)


def _of_mlp(mlp: Mlp) -> "Iterator[tuple[Place, InputKey]]":
    first = mlp.up if mlp.gate is None else mlp.gate
    experts: range | tuple[None] = range(mlp.up.n_matrices) if mlp.up.n_matrices > 1 else (None,)
    for expert in experts:
        for linear in (first, mlp.up):
            yield (linear.tensor, expert), (first.tensor, expert)
        yield (mlp.down.tensor, expert), (mlp.down.tensor, expert)
