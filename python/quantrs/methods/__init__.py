"""How a layer's integers are found, given its weights and what calibration knows of its input.

A method is a transform of the block, which moves scale between weights and their inputs, and a way of rounding. The table is
`METHODS`; to add one, write a function and a row.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from quantrs.methods.rounding import round_by_gptq, round_to_nearest
from quantrs.methods.transforms import scale_by_awq, scale_by_smoothquant

if TYPE_CHECKING:
    from quantrs.calibration.statistics import Need
    from quantrs.methods.rounding import Rounding
    from quantrs.quantizing.block_work import BlockWork

__all__ = ["METHODS", "Method"]


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row of `METHODS`."""

    summary: str
    rounding: "Rounding"
    transform: "Callable[[BlockWork], None] | None" = None
    """Scales weights of a block and what feeds them."""
    needs: "frozenset[Need]" = frozenset()
    """Statistics of inputs; none for methods without calibration."""
    sequential: bool = True
    """Whether later blocks see quantized earlier ones, unless the user says otherwise."""


METHODS: Mapping[str, Method] = {
    "awq": Method(
        summary="scales and clips by what the inputs look like, then rounds to nearest",
        rounding=round_to_nearest,
        transform=scale_by_awq,
        needs=frozenset({"hessian", "mean"}),
    ),
    "gptq": Method(
        summary="rounds column by column, later columns making up for the errors of earlier ones",
        rounding=round_by_gptq,
        needs=frozenset({"hessian"}),
    ),
    "rtn": Method(summary="rounds to nearest; needs no calibration", rounding=round_to_nearest),
    "smoothquant": Method(
        summary="moves outliers of inputs into the weights, then rounds to nearest",
        rounding=round_to_nearest,
        transform=scale_by_smoothquant,
        needs=frozenset({"largest"}),
    ),
}
"""By the name that ``--method`` takes."""

MethodName = Literal["awq", "gptq", "rtn", "smoothquant"]
