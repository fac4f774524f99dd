"""One block on its way to integers: its weights, which methods may scale, and the statistics of its inputs."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from quantrs.calibration.folding import fold, tensors_of
from quantrs.errors import InputError
from quantrs.families.scale_groups import ScaleGroup, scale_groups
from quantrs.quantizing.dtypes import DTYPES
from quantrs.quantizing.inputs import InputKey, input_keys
from quantrs.quantizing.read_values import read_float32

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from quantrs import _native
    from quantrs.calibration.statistics import InputStatistics
    from quantrs.families.spec import Block
    from quantrs.hessian import Hessian
    from quantrs.quantizing.linears import Place, Stored
    from quantrs.quantizing.plan import FolderPlan, PlannedLayer

__all__ = ["BlockWork"]


class BlockWork:
    """The weights of one block, in the row order of the folder, and what calibration knows of their inputs."""

    def __init__(
        self,
        spec: "Block",
        plan: "FolderPlan",
        *,
        layers: "Mapping[Place, PlannedLayer]",
        stored: "Mapping[Place, Stored]",
        sources: "_native.Sources",
        threads: int | None,
    ) -> None:
        self.spec = spec
        self.plan = plan
        self.options = plan.plan.options
        self.layers = layers
        """What is quantized."""
        self.threads = threads
        self.keys = input_keys(spec)
        """The input of each linear."""
        self.statistics: dict[InputKey, InputStatistics] = {}
        self.divisors: dict[InputKey, NDArray[np.float32]] = {}
        """What inputs were divided by since they were measured."""
        self.changed: dict[str, NDArray[np.float32]] = {}
        """Tensors that a transform has scaled, as the engine knows them: ``[out, in]``, ``[experts, out, in]`` or ``[n]``."""
        self._stored = stored
        self._sources = sources

    def values(self, place: "Place") -> "NDArray[np.float32]":
        """A matrix as it is to be quantized, float32 ``[out_features, in_features]``; or a vector."""
        name, expert = place
        if name in self.changed:
            whole = self.changed[name]
            return whole if expert is None else whole[expert]
        found = self._stored[place]
        values = read_float32(self._sources, found.tensor)
        return values + np.float32(found.add) if found.add else values

    def scale_groups(self) -> Iterator[ScaleGroup]:
        """Groups of which something is quantized, and everything can be changed."""
        for group in scale_groups(self.spec):
            if all(self.experts_of(name) for name in tensors_of(group)) and any(
                (reader.tensor, expert) in self.layers for reader in group.readers for expert in self.experts_of(reader.tensor)
            ):
                yield group

    def fold(self, group: ScaleGroup, s: "NDArray[np.float32]") -> None:
        """Multiply the readers' columns by `s`, and divide their input by it."""
        names = tensors_of(group)
        for name in names:
            if name not in self.changed:
                self.changed[name] = self._whole(name)
        if group.expert is None:
            self.changed |= fold(group, s, {name: self.changed[name] for name in names})
        else:  # of that expert alone, or the matrices of all would be copied for each
            alone = slice(group.expert, group.expert + 1)
            for name, values in fold(replace(group, expert=0), s, {name: self.changed[name][alone] for name in names}).items():
                self.changed[name][alone] = values
        per_channel = group.expand(s)
        readers = {linear.tensor for linear in (*group.readers, *group.kept)}
        for place, key in self.keys.items():
            if place[0] in readers and group.expert in (None, place[1]):
                self.divisors[key] = per_channel

    def set_values(self, place: "Place", values: "NDArray[np.float32]") -> None:
        """Put other values in place of a matrix's."""
        name, expert = place
        if expert is None:
            self.changed[name] = values
            return
        whole = self.changed[name] if name in self.changed else self._whole(name)
        whole[expert] = values
        self.changed[name] = whole

    def hessian(self, place: "Place") -> "Hessian":
        """Of a linear's input."""
        return self.statistics[self.keys[place]].hessian

    def experts_of(self, name: str) -> list[int | None]:
        """Experts whose matrices a tensor holds; ``[None]`` for a tensor that is one matrix or vector, empty for none of the folder's."""
        return [expert for tensor, expert in self._stored if tensor == name]

    def order_of(self, name: str) -> tuple[str, int]:
        """How the engine's rows of a tensor come from those here, and in how many heads."""
        found = next(stored for place, stored in self._stored.items() if place[0] == name)
        return found.order, found.n_heads

    def as_written(self, place: "Place") -> "tuple[NDArray[np.float32], bytes]":
        """A tensor that is not quantized, rounded to the type that it is written in: the engine's values, and its bytes.

        Raises
        ------
        InputError
            A value is too large for that type.
        """
        found = self._stored[place]
        planned = self.plan.tensor(found.tensor.name)
        with np.errstate(over="ignore"):
            rounded = (self.values(place) - np.float32(found.add)).astype(DTYPES[planned.target_type])
        values = rounded.astype(np.float32)
        if not np.isfinite(values).all():
            raise InputError(f"{found.tensor.name}: after scaling a value is too large for {planned.target_type}; use another method")
        return values + np.float32(found.add), rounded.tobytes()

    def _whole(self, name: str) -> "NDArray[np.float32]":
        experts = self.experts_of(name)
        if experts == [None]:
            return self.values((name, None))
        return np.stack([self.values((name, expert)) for expert in sorted(expert for expert in experts if expert is not None)])
