"""Quantizes layer after layer, each by itself: for methods without calibration."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantrs import _native
from quantrs.methods.rounding import rounded_to_nearest
from quantrs.naming_errors import errors_of
from quantrs.quantizing.folder_formats import FOLDER_FORMATS
from quantrs.quantizing.read_values import read_float32
from quantrs.writer import Made

if TYPE_CHECKING:
    from quantrs.progress import JobProgress
    from quantrs.quantizing.plan import FolderPlan
    from quantrs.quantizing.source import HfModel
    from quantrs.writer import Key

__all__ = ["LayerMaker"]


@dataclass(frozen=True, kw_only=True)
class LayerMaker:
    """Makes the tensors of a `FolderPlan` by rounding to nearest; one layer is in memory at a time."""

    model: "HfModel"
    plan: "FolderPlan"
    progress: "JobProgress"
    threads: int | None

    def make(self, todo: "Collection[Key]") -> "Iterator[Made]":
        """Each layer of which something is to do."""
        sources, wanted, scheme = _native.Sources(self.model.tensors), set(todo), self.plan.scheme
        for layer in self.plan.layers:
            if wanted.isdisjoint(layer.keys.values()):
                continue
            with errors_of(layer.linear.name):
                weights = read_float32(sources, layer.linear.tensor)
                rounded = rounded_to_nearest(
                    weights, scheme, layer.scheme, dtype=self.plan.dtype, mse=self.plan.plan.options.mse, threads=self.threads
                )
            arrays = FOLDER_FORMATS[scheme.format].pack(rounded, scheme, layer.scheme, self.plan.dtype, layer.linear.name)
            for suffix, key in layer.keys.items():
                yield Made(key, arrays[suffix].tobytes())
            self.progress.add(layer.linear.tensor.nbytes)
