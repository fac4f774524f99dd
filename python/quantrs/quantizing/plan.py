"""The plan of a quantized folder: what each linear becomes, what is copied, and where it goes in which file."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from quantrs import _native
from quantrs.errors import InputError, UsageError
from quantrs.huggingface.output_folder import cut_into_shards
from quantrs.plan import Plan, PlannedFile, TensorPlan
from quantrs.quantizing.folder_formats import FOLDER_FORMATS
from quantrs.quantizing.linears import Linear, unquantized_linears
from quantrs.recipe import Recipe
from quantrs.schemes import FLOATS, is_quantized

if TYPE_CHECKING:
    from quantrs._native import TensorInfo
    from quantrs.options import QuantizeOptions
    from quantrs.quantizing.schemes import FolderScheme, LayerScheme
    from quantrs.quantizing.source import HfModel
    from quantrs.writer import Key

__all__ = ["Chosen", "FolderPlan", "PlannedLayer", "choose", "plan_folder"]


@dataclass(frozen=True)
class PlannedLayer:
    """One linear that is quantized."""

    linear: Linear
    scheme: "LayerScheme"
    why: str
    keys: "Mapping[str, Key]"
    """Where each of its tensors goes, by what follows the module's name: ``qweight`` ..."""


@dataclass(frozen=True)
class FolderPlan:
    """A plan of files, and what its made tensors are made from."""

    plan: Plan
    scheme: "FolderScheme"
    dtype: str
    """Of what is not quantized, and of scales where the format leaves it open: ``BF16``, ``F16`` or ``F32``."""
    layers: tuple[PlannedLayer, ...]
    scaled: "Mapping[str, Key]"
    """Tensors that a method may multiply, so that they are made too: their names and where they go."""
    unquantized: tuple[str, ...]
    """Modules with plain weights that a loader would take for linears."""

    def tensor(self, name: str) -> TensorPlan:
        """The tensor of this name in the folder."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, TensorPlan]:
        return {tensor.name: tensor for tensor in self.plan.tensors}


class Chosen(NamedTuple):
    """A linear that is quantized, and how."""

    linear: Linear
    scheme: "LayerScheme"
    why: str


class _Row(NamedTuple):
    """One tensor to be written."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    source: "TensorInfo"
    why: str
    made: bool
    n_weights: int


def plan_folder(
    model: "HfModel",
    scheme: "FolderScheme",
    options: "QuantizeOptions",
    dst: Path,
    *,
    linears: Sequence[Linear],
    chosen: "Mapping[str, Chosen]",
    scaled: Sequence[str],
    calibration: str | None,
    max_shard_bytes: int,
    dtype: str | None = None,
) -> FolderPlan:
    """Lay out the files.

    Parameters
    ----------
    linears : sequence of Linear
        All of the model's.
    chosen : mapping
        What `choose` made of them.
    scaled : sequence of str
        Names of unquantized tensors that the method may multiply.
    calibration : str, optional
        Hash of the calibration data.
    max_shard_bytes : int
        Size of each file; a layer that is larger gets one of its own.
    dtype : {"F32", "F16", "BF16"}, optional
        What ``config.json`` will say; the model's own when not given. AWQ has F16.

    Raises
    ------
    InputError
        A linear does not fit the scheme.
    """
    dtype = "F16" if scheme.format == "awq" else dtype or model.dtype
    format_ = FOLDER_FORMATS[scheme.format]
    groups: list[list[_Row]] = []
    suffixes: dict[str, tuple[str, ...]] = {}
    for tensor in model.tensors.tensors:
        picked = chosen.get(tensor.name.removesuffix(".weight")) if tensor.name.endswith(".weight") else None
        if picked is None:
            target = _kept_type(tensor, scheme, dtype)
            made = tensor.name in scaled
            groups.append([_Row(tensor.name, target, model.shapes[tensor.name], tensor, "scaled" if made else "kept", made, -1)])
            continue
        linear, layer, why = picked
        stored = format_.stored(scheme, layer, linear.out_features, linear.in_features, dtype, linear.name)
        suffixes[linear.name] = tuple(stored)
        n_weights = linear.out_features * linear.in_features
        rows = []
        for suffix, (stored_type, shape) in stored.items():
            rows.append(_Row(f"{linear.name}.{suffix}", stored_type, shape, tensor, why, True, n_weights))
            n_weights = 0
        groups.append(rows)
    sizes = [[_nbytes(row) for row in rows] for rows in groups]
    shards = cut_into_shards([sum(group) for group in sizes], max_shard_bytes)
    files = [_file(dst / shard.name, [row for i in shard.members for row in groups[i]]) for shard in shards]
    keys = {tensor.name: (i, tensor.name) for i, file in enumerate(files) for tensor in file.tensors}
    layers = tuple(
        PlannedLayer(linear, layer, why, {suffix: keys[f"{linear.name}.{suffix}"] for suffix in suffixes[linear.name]})
        for linear, layer, why in chosen.values()
    )
    plan = Plan(
        tensors=tuple(tensor for file in files for tensor in file.tensors),
        files=tuple(files),
        file_bytes=sum(file.file_bytes for file in files),
        source_bytes=model.tensors.file_size,
        file_type=scheme.name,
        notices=(),
        refusals=(),
        options=options,
        imatrix=None,
        made_from=_made_from(layers, calibration),
    )
    return FolderPlan(
        plan=plan,
        scheme=scheme,
        dtype=dtype,
        layers=layers,
        scaled={name: keys[name] for name in scaled},
        unquantized=tuple(unquantized_linears(model, list(linears), set(chosen))),
    )


def _made_from(layers: Sequence[PlannedLayer], calibration: str | None) -> str:
    """Names and sizes of the written tensors do not tell all of it: symmetric codes lie as others do."""
    digest = hashlib.blake2b((calibration or "").encode(), digest_size=16)
    for layer in layers:
        digest.update(f"\n{layer.linear.name} {layer.scheme.text}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def choose(model: "HfModel", linears: Sequence[Linear], scheme: "FolderScheme", options: "QuantizeOptions") -> "dict[str, Chosen]":
    """What is quantized, and how, by the module's name.

    Raises
    ------
    UsageError
        A pattern or a recipe is malformed.
    InputError
        A pattern or a rule matches nothing, or nothing is left to quantize.
    """
    skips = [_compiled(pattern) for pattern in options.skip]
    used: set[str] = set()
    recipe = None if options.recipe is None else Recipe.read(options.recipe, type_of=scheme.layer_text)
    chosen: dict[str, Chosen] = {}
    for linear in linears:
        skip = next((pattern for pattern in skips if pattern.search(linear.name)), None)
        rule = recipe.rule_for(f"{linear.name}.weight") if recipe else None
        if skip is not None:
            used.add(skip.pattern)
        elif rule is not None and rule.type_name is None:
            continue
        elif rule is not None and rule.type_name is not None:
            chosen[linear.name] = Chosen(linear, scheme.with_layer(rule.type_name, where=rule.why), rule.why)
        else:
            chosen[linear.name] = Chosen(linear, scheme.layer, scheme.name)
    if recipe:
        recipe.check_all_matched()
    unused = [pattern.pattern for pattern in skips if pattern.pattern not in used]
    if unused:
        raise InputError(
            f"--skip {unused[0]!r}: is found in no linear's name; those are called {', '.join(linear.name for linear in linears[:2])} ..."
        )
    if not chosen:
        raise InputError(f"{model.path}: no linear is left to quantize")
    return chosen


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, OverflowError) as error:
        raise UsageError(f"--skip {pattern!r}: is not a regular expression: {error}") from None


def _kept_type(tensor: "TensorInfo", scheme: "FolderScheme", dtype: str) -> str:
    """AWQ's kernels compute in float16 and want everything else in it."""
    found = tensor.type_name or ""
    if is_quantized(found):
        return dtype
    return "F16" if scheme.format == "awq" and found in FLOATS else found


_WIDTHS = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1, "U8": 1, "F8_E4M3": 1}


def _nbytes(row: _Row) -> int:
    return _WIDTHS[row.dtype] * prod(row.shape)


def _file(path: Path, rows: Sequence[_Row]) -> PlannedFile:
    header, offsets = _native.safetensors_header([(row.name, row.dtype, row.shape) for row in rows], {"format": "pt"})
    planned = [
        TensorPlan(
            name=row.name,
            dims=tuple(reversed(row.shape)) or (1,),
            source_type=row.source.type_name or "",
            target_type=row.dtype,
            why=row.why,
            nbytes=_nbytes(row),
            offset=offset,
            imatrix_name=None,
            source=row.source,
            made=row.made,
            n_weights=row.n_weights,
        )
        for row, offset in zip(rows, offsets, strict=True)
    ]
    planned.sort(key=lambda tensor: tensor.offset)
    return PlannedFile(path=str(path), header=header, tensors=tuple(planned), file_bytes=len(header) + sum(_nbytes(row) for row in rows))
