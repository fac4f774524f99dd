"""Moving scale between the weights of a block and their inputs, before anything is rounded."""

from typing import TYPE_CHECKING

import numpy as np

from quantrs.awq import awq_clip, awq_search, clamp_groups
from quantrs.calibration.coverage import FEW_TOKENS
from quantrs.methods.rounding import grid_of
from quantrs.naming_errors import errors_of
from quantrs.smoothquant import smooth_scales

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from quantrs.calibration.statistics import InputStatistics
    from quantrs.families.scale_groups import ScaleGroup
    from quantrs.quantizing.block_work import BlockWork
    from quantrs.quantizing.schemes import LayerScheme

__all__ = ["scale_by_awq", "scale_by_smoothquant"]


def scale_by_awq(work: "BlockWork") -> None:
    """Scale the inputs of each group of linears so that their outputs err least, then clip weights likewise.

    Errors are those of the linears' own outputs over all calibration tokens. Queries and keys are not clipped: their errors meet in
    a product.
    """
    for group in work.scale_groups():
        found = _statistics(work, group)
        layer = _first_layer(work, group)
        if found is None or not _says_enough(found, group.expert):
            continue
        rule, scale_type, _ = grid_of(work.plan.scheme, work.plan.dtype)
        with errors_of(group.readers[0].tensor):
            best = awq_search(
                _weights(work, group),
                found.hessian,
                x_mean=found.mean,
                bits=layer.bits,
                group_size=layer.group_size,
                zero_point=not layer.symmetric,
                rule=rule,
                scale_type=scale_type,
                scale_of=group.expand(np.arange(group.n_scales, dtype=np.float32)).astype(np.uint32),
                threads=work.threads,
            )
        work.fold(group, group.shared(best.scales)[0])
    _clip(work)


def scale_by_smoothquant(work: "BlockWork") -> None:
    """Even out inputs and weights, channel by channel."""
    for group in work.scale_groups():
        found = _statistics(work, group)
        if found is None or not _says_enough(found, group.expert):
            continue
        with errors_of(group.readers[0].tensor):
            s = smooth_scales(found.largest, _weights(work, group), alpha=work.options.smooth_alpha, threads=work.threads)
        # Channels that have to share a scale take the largest.
        work.fold(group, group.shared(s).max(axis=0))


def _clip(work: "BlockWork") -> None:
    """Clip the weights of all layers but queries and keys."""
    attention = work.spec.attention
    kept = {attention.q.tensor, attention.k.tensor}
    rule, scale_type, _ = grid_of(work.plan.scheme, work.plan.dtype)
    for place, layer in work.layers.items():
        key = work.keys[place]
        found = work.statistics[key]
        if place[0] in kept or not _says_enough(found, place[1]):
            continue
        weights = work.values(place)
        with errors_of(place[0]):
            thresholds = awq_clip(
                weights,
                found.hessian,
                bits=layer.scheme.bits,
                group_size=layer.scheme.group_size,
                zero_point=not layer.scheme.symmetric,
                scales=work.divisors.get(key),
                rule=rule,
                scale_type=scale_type,
                threads=work.threads,
            )
        work.set_values(place, clamp_groups(weights, thresholds))


def _statistics(work: "BlockWork", group: "ScaleGroup") -> "InputStatistics | None":
    """Of the input that the readers share; all tokens of a block with experts go through its router."""
    reader = group.kept[0] if group.kept else group.readers[0]
    key = work.keys.get((reader.tensor, group.expert))
    return None if key is None else work.statistics[key]


def _says_enough(found: "InputStatistics", expert: int | None) -> bool:
    """There were tokens; for an expert, more than a few: it would be fitted to those."""
    return found.n_tokens >= (1 if expert is None else FEW_TOKENS)


def _first_layer(work: "BlockWork", group: "ScaleGroup") -> "LayerScheme":
    """The grid that the search takes; layers of a group hardly ever differ."""
    places = ((reader.tensor, expert) for reader in group.readers for expert in work.experts_of(reader.tensor))
    return next(work.layers[place].scheme for place in places if place in work.layers)


def _weights(work: "BlockWork", group: "ScaleGroup") -> "list[NDArray[np.float32]]":
    """The matrices of all readers that are quantized, each once."""
    experts = {reader.tensor: work.experts_of(reader.tensor) if group.expert is None else [group.expert] for reader in group.readers}
    return [work.values((name, expert)) for name, members in experts.items() for expert in members if (name, expert) in work.layers]
