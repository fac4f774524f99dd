"""Quantized models into checkpoint folders of another format: codes go over as they are where the new grid contains the old one."""

import os
import re
import time
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from quantrs import _native
from quantrs.huggingface.stored_types import TORCH_TYPES
from quantrs.methods.rounding import grid_of, rounded_to_nearest
from quantrs.options import QuantizeOptions
from quantrs.progress import JobProgress
from quantrs.quantizing.codes import CodeSource, open_codes
from quantrs.quantizing.folder_formats import FOLDER_FORMATS
from quantrs.quantizing.linears import Linear, find_linears, stored_tensors
from quantrs.quantizing.plan import Chosen, FolderPlan, plan_folder
from quantrs.quantizing.read_values import read_float32
from quantrs.quantizing.regrid import held_exactly, regrid
from quantrs.quantizing.source import HfModel
from quantrs.quantizing.write import write_planned
from quantrs.report import tensor_group
from quantrs.writer import Made

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import NDArray

    from quantrs.methods.rounding import Rounded
    from quantrs.progress import Watcher
    from quantrs.quantizing.schemes import FolderScheme, LayerScheme
    from quantrs.report import Report
    from quantrs.writer import Errors, Key

__all__ = ["repack"]

_CHUNK_ROWS = 64
_ADVICE = {
    "activation order": "only --to gptq-...-act keeps the groups of activation order, at their own size",
    "zero points of 0": "readers of GPTQ version 1 take zero points of 0 wrong: add -v2",
    "zero points beside the middle": "their zero points are not in the middle of the range: add -asym",
    "codes beyond the range": "their codes need more bits",
    "groups of other columns": "scales stay what they are in groups of the same size, or of a divisor of it",
    "scales of another type": "the scales are of a type that this format has not",
    "a grid of floats": "FP8 is no grid of integers",
    "no integers in groups": "floating-point codes, scales of several rows and blocks with minima are on no grid of integers",
}


def repack(
    src: "str | PathLike[str]",
    dst: Path,
    scheme: "FolderScheme",
    *,
    pre: str | None,
    arch: str | None,
    max_shard_bytes: int,
    threads: int | None,
    force: bool,
    resume: bool,
    watcher: "Watcher",
) -> "Report":
    """Write the quantized linears of a model as `scheme`, everything else as it is; `Report.errors` tells what that loses.

    Raises
    ------
    InputError
        Nothing is quantized, a linear does not fit the format, or as `quantrs.conversion.convert`.
    FormatError, FileError
        As `quantrs.conversion.convert`.
    """
    started = time.perf_counter()
    model = HfModel.open(os.fspath(src), pre=pre, arch=arch)
    source = open_codes(model)
    linears = _all_linears(model, source)
    chosen = {name: Chosen(linears[name], scheme.layer, scheme.layer.text) for name in _held_names(source, scheme)}
    dtype = _scale_dtype(model, source, scheme)
    plan = plan_folder(
        model,
        scheme,
        QuantizeOptions(to=scheme.name, allow_requantize=True, pre=pre, arch=arch),
        dst,
        linears=list(linears.values()),
        chosen=chosen,
        scaled=(),
        calibration=None,
        max_shard_bytes=max_shard_bytes,
        dtype=dtype,
    )
    said = model.config.get("dtype", model.config.get("torch_dtype"))
    if dtype is not None and said in TORCH_TYPES.values() and said != TORCH_TYPES[dtype]:
        watcher.notice(f"config.json says {TORCH_TYPES[dtype]} where that of the source says {said}, which does not hold all scales")
    progress = JobProgress(makes=True)
    maker = _RepackMaker(model=model, plan=plan, source=source, progress=progress, threads=threads)
    report = write_planned(
        model,
        plan,
        dst,
        maker=maker,
        method="",
        started=started,
        threads=threads,
        force=force,
        resume=resume,
        measure=True,
        watcher=watcher,
        progress=progress,
    )
    for text in _notices(report, maker):
        watcher.notice(text)
    return report


def _all_linears(model: HfModel, source: CodeSource) -> dict[str, Linear]:
    """What is quantized, and what could have been."""
    tensors = {tensor.name: tensor for tensor in model.tensors.tensors}
    linears = {linear.name: linear for linear in find_linears(model, stored_tensors(model))}
    for name in source.names:
        if name not in linears:
            tensor = tensors[f"{name}.weight"]
            linears[name] = Linear(name, tensor, tensor.dims[1], tensor.dims[0], None, None)
    return linears


def _held_names(source: CodeSource, scheme: "FolderScheme") -> list[str]:
    """The linears that become codes again: AWQ's loaders know none outside the blocks, such as output matrices."""
    return [name for name in source.names if scheme.format != "awq" or re.search(r"\.\d+\.", name)]


def _scale_dtype(model: HfModel, source: CodeSource, scheme: "FolderScheme") -> str | None:
    """The model's type if it holds all scales, which compressed-tensors keeps in it; else another one that does."""
    if scheme.format != "compressed-tensors" or scheme.layer.value_type == "float":
        return None
    said = str(model.config.get("dtype", model.config.get("torch_dtype")))
    usual = next((name for name, torch_name in TORCH_TYPES.items() if torch_name == said), model.dtype)
    possible = list(dict.fromkeys([usual, "F16", "BF16", "F32"]))
    for name in source.names:
        scales = source.kept_scales(name, scheme.layer)
        if scales is not None:
            possible = [dtype for dtype in possible if held_exactly(scales, dtype)]
    return possible[0] if possible else usual


@dataclass(kw_only=True)
class _RepackMaker:
    """Makes the tensors of a `FolderPlan` from codes; one layer is in memory at a time."""

    model: HfModel
    plan: FolderPlan
    source: CodeSource
    progress: JobProgress
    threads: int | None
    why_rounded: Counter[str] = field(default_factory=Counter)
    """Linears by what the new grid does not contain of them."""

    def make(self, todo: "Collection[Key]") -> "Iterator[Made]":
        """Each layer of which something is to do."""
        sources, wanted, scheme = _native.Sources(self.model.tensors), set(todo), self.plan.scheme
        for layer in self.plan.layers:
            if wanted.isdisjoint(layer.keys.values()):
                continue
            rounded, errors = self._repacked(sources, layer.linear, layer.scheme)
            arrays = FOLDER_FORMATS[scheme.format].pack(rounded, scheme, layer.scheme, self.plan.dtype, layer.linear.name)
            for suffix, key in layer.keys.items():
                yield Made(key, arrays[suffix].tobytes(), errors if self.plan.tensor(key[1]).n_weights else None)
            self.progress.add(layer.linear.tensor.nbytes)

    def _repacked(self, sources: "_native.Sources", linear: Linear, layer: "LayerScheme") -> "tuple[Rounded, Errors]":
        scheme, dtype = self.plan.scheme, self.plan.dtype
        grouped = self.source.read(linear.name) if layer.value_type == "int" else None
        if grouped is not None:
            found = regrid(grouped, layer, grid_of(scheme, dtype), threads=self.threads)
            self.why_rounded.update(found.why_rounded)
            return found.layer, _errors(grouped.dequantize(), found.layer)
        values = read_float32(sources, linear.tensor)
        rounded = rounded_to_nearest(values, scheme, layer, dtype=dtype, mse=None, threads=self.threads)
        errors = _errors(values, rounded)
        if errors[0]:
            self.why_rounded["no integers in groups" if layer.value_type == "int" else "a grid of floats"] += 1
        return rounded, errors


def _errors(before: "NDArray[np.float32]", rounded: "Rounded") -> "Errors":
    after = rounded.dequantize()
    squared_error, squared, largest = 0.0, 0.0, 0.0
    for start in range(0, len(before), _CHUNK_ROWS):  # what stays in the cache
        values = before[start : start + _CHUNK_ROWS]
        errors = after[start : start + _CHUNK_ROWS] - values
        squared_error += _sum_of_squares(errors)
        squared += _sum_of_squares(values)
        largest = max(largest, float(np.abs(errors).max()))
    return squared_error, squared, largest


def _sum_of_squares(values: "NDArray[np.float32]") -> float:
    """In float32 along rows, in float64 over them."""
    return float(np.einsum("ij,ij->i", values, values).sum(dtype=np.float64))


def _notices(report: "Report", maker: _RepackMaker) -> Iterator[str]:
    groups = {tensor_group(f"{layer.linear.name}.weight") for layer in maker.plan.layers}
    measured = [errors for errors in report.errors if errors.group in groups and maker.plan.scheme.layer.text in errors.types]
    if not measured:
        return
    exact, n_linears = sum(errors.exact for errors in measured), len(maker.plan.layers)
    yield f"{exact} of {n_linears} linears have the very same values as in the source"
    for reason, count in maker.why_rounded.items():
        yield f"{count} of {n_linears} linears were rounded: {_ADVICE[reason]}"
