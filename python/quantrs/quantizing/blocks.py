"""Quantizes block after block: runs each to see its inputs, solves its layers, runs it again as it will be."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from quantrs import _native
from quantrs.calibration.blocks import Block, Blocks, Replacement
from quantrs.calibration.coverage import FEW_TOKENS, Coverage
from quantrs.calibration.hidden_states import HiddenStates
from quantrs.calibration.statistics import InputStatistics
from quantrs.errors import FormatError, InputError
from quantrs.methods.rounding import round_to_nearest
from quantrs.naming_errors import errors_of
from quantrs.quantizing.block_work import BlockWork
from quantrs.quantizing.folder_formats import FOLDER_FORMATS
from quantrs.quantizing.inputs import InputKey, trace_name
from quantrs.writer import Made

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from quantrs.methods import Method
    from quantrs.methods.rounding import Rounded
    from quantrs.progress import JobProgress
    from quantrs.quantizing.linears import Place, Stored
    from quantrs.quantizing.plan import FolderPlan, PlannedLayer
    from quantrs.quantizing.source import HfModel
    from quantrs.writer import Key

__all__ = ["BlockMaker"]

_TRACE, _SOLVE, _FORWARD = 0.45, 0.3, 0.25
"""Shares of a block's progress, roughly as the work is."""


@dataclass(kw_only=True)
class BlockMaker:
    """Makes the tensors of a `FolderPlan` with calibration."""

    model: "HfModel"
    plan: "FolderPlan"
    method: "Method"
    blocks: Blocks
    ids: "NDArray[np.int32]"
    """Calibration data, ``[n_sequences, length]``."""
    destination: Path
    """Hidden states lie beside it."""
    job: str
    """What has to be equal for the hidden states of an earlier run to be these."""
    memory_budget: int
    resume: bool
    stored: "Mapping[Place, Stored]"
    sequential: bool
    min_coverage: float | None
    progress: "JobProgress"
    threads: int | None
    expert_tokens: dict[str, list[int]] = field(default_factory=dict)
    """How many calibration tokens reached each expert, by tensor."""
    without_inputs: list[str] = field(default_factory=list)
    """Linears whose inputs were all 0, so that their errors weigh nothing."""

    def __post_init__(self) -> None:
        self._sources = _native.Sources(self.model.tensors)
        self._format = FOLDER_FORMATS[self.plan.scheme.format]
        self._layers: dict[int, list[PlannedLayer]] = {}
        for layer in self.plan.layers:
            if layer.linear.block is not None:
                self._layers.setdefault(layer.linear.block, []).append(layer)

    def make(self, todo: "Collection[Key]") -> "Iterator[Made]":
        """Go through the blocks, from the last whose inputs are still there, up to the last with something to do."""
        wanted = set(todo)
        unfinished = [i for i in range(len(self.blocks)) if wanted & {*self._layer_keys(i), *self._scaled_keys(i).values()}]
        hidden, first = self._hidden_states(min(unfinished))
        try:
            for i in range(first, max(unfinished) + 1):
                yield from self._make_block(i, hidden, is_last=i == max(unfinished))
        except (InputError, FormatError):
            hidden.remove()
            raise
        finally:
            hidden.close()
        hidden.remove()

    def _hidden_states(self, first_unfinished: int) -> tuple[HiddenStates, int]:
        """What goes into a block, and which: that of an earlier run, if nothing before it is to do, else the first."""
        shape = (*self.ids.shape, self.blocks.n_embd)
        found = HiddenStates.reopen(self.destination, self.job, shape, self.memory_budget) if self.resume else None
        if found is not None and found[1] <= first_unfinished:
            return found
        hidden = HiddenStates(self.destination, self.job, shape, self.memory_budget)
        try:
            for s, ids in enumerate(self.ids):
                with errors_of(_sequence(s)):
                    hidden[s] = self.blocks.embed(ids.tolist())
                self.progress.add(0)  # hears of a cancellation
        except BaseException:
            hidden.close()
            raise
        return hidden, 0

    def _make_block(self, i: int, hidden: HiddenStates, *, is_last: bool) -> "Iterator[Made]":
        layers = self._layers.get(i, [])
        weight = float(sum(layer.linear.tensor.nbytes for layer in layers))
        runs_again = self.sequential and not is_last
        work = self._work(i, layers)
        work.statistics = self._measure(i, work, hidden, _TRACE * weight, keep_outputs=not (runs_again or is_last))
        self._count_experts(work)
        if self.method.transform is not None:
            self.method.transform(work)
        replaced: dict[Place, NDArray[np.float32]] = {}
        for place, layer in work.layers.items():
            with errors_of(layer.linear.name):
                rounded = self._round(work, place, layer)
            if runs_again:
                replaced[place] = rounded.dequantize()
            arrays = self._format.pack(rounded, self.plan.scheme, layer.scheme, self.plan.dtype, layer.linear.name)
            for suffix, key in layer.keys.items():
                yield Made(key, arrays[suffix].tobytes())
            self.progress.add(_SOLVE * layer.linear.tensor.nbytes)
        for place, key in self._scaled_keys(i).items():
            yield Made(key, work.as_written(place)[1])
        if runs_again:
            self._advance(self.blocks.open(i, self._replacements(work, replaced)), hidden, weight * _FORWARD)
        else:
            self.progress.add(weight * _FORWARD)
        if not is_last:
            hidden.checkpoint(i + 1)

    def _layer_keys(self, i: int) -> "Iterator[Key]":
        for layer in self._layers.get(i, []):
            yield from layer.keys.values()

    def _scaled_keys(self, i: int) -> "dict[Place, Key]":
        """Unquantized tensors of a block that a transform may scale."""
        names = self.blocks.tensors(i)
        return {
            place: self.plan.scaled[stored.tensor.name]
            for place, stored in self.stored.items()
            if place[0] in names and stored.tensor.name in self.plan.scaled
        }

    def _work(self, i: int, layers: "Sequence[PlannedLayer]") -> BlockWork:
        names = self.blocks.tensors(i)
        return BlockWork(
            self.blocks.graph.blocks[i],
            self.plan,
            layers={layer.linear.place: layer for layer in layers if layer.linear.place is not None},
            stored={place: stored for place, stored in self.stored.items() if place[0] in names},
            sources=self._sources,
            threads=self.threads,
        )

    def _measure(
        self, i: int, work: BlockWork, hidden: HiddenStates, share: float, *, keep_outputs: bool
    ) -> "dict[InputKey, InputStatistics]":
        """Run the block over all sequences, and gather what the method needs of the inputs."""
        block, tensors, n_sequences = self.blocks.open(i), self.blocks.tensors(i), len(hidden)
        keys = list(dict.fromkeys(work.keys.values()))
        names = list(dict.fromkeys(name for name, _ in keys))
        found = {key: InputStatistics(tensors[key[0]].dims[0], self.method.needs, threads=self.threads) for key in keys}
        for s in range(n_sequences):
            with errors_of(_sequence(s)):
                inputs, y = block.trace(hidden[s], names)
            for key in keys:
                x = inputs.get(trace_name(key))
                if x is not None:
                    found[key].add(x)
            if keep_outputs:
                hidden[s] = y
            self.progress.add(share / n_sequences)
        return found

    def _count_experts(self, work: BlockWork) -> None:
        """Note how many tokens reached each expert.

        Raises
        ------
        InputError
            Fewer of the block's experts than `min_coverage` got enough.
        """
        counts: dict[str, list[int]] = {}
        for (name, expert), found in work.statistics.items():
            if expert is not None:
                counts.setdefault(name, []).append(found.n_tokens)
        Coverage.of(counts).check(self.min_coverage)
        self.expert_tokens |= counts

    def _round(self, work: BlockWork, place: "Place", layer: "PlannedLayer") -> "Rounded":
        found = work.statistics[work.keys[place]]
        # The statistics of an expert that hardly a token reached would say more about these tokens than about it.
        if place[1] is not None and found.n_tokens < FEW_TOKENS:
            return round_to_nearest(work, place, layer)
        if found.all_zero:
            self.without_inputs.append(layer.linear.name)
            return round_to_nearest(work, place, layer)
        return self.method.rounding(work, place, layer)

    def _advance(self, block: Block, hidden: HiddenStates, share: float) -> None:
        for s in range(len(hidden)):
            with errors_of(f"{_sequence(s)}, through quantized weights"):
                hidden[s] = block.forward(hidden[s])
            self.progress.add(share / len(hidden))

    def _replacements(self, work: BlockWork, replaced: "Mapping[Place, NDArray[np.float32]]") -> dict[str, Replacement]:
        """The block's tensors as the written folder has them."""
        out: dict[str, Replacement] = {}
        for name in dict.fromkeys([*(name for name, _ in replaced), *work.changed]):
            places = [(name, expert) for expert in work.experts_of(name)]
            parts = [replaced[place] if place in replaced else work.as_written(place)[0] for place in places]
            out[name] = Replacement([np.ascontiguousarray(part) for part in parts], *work.order_of(name))
        return out


def _sequence(s: int) -> str:
    return f"calibration sequence {s}"
