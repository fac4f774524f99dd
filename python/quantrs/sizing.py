"""How large a model becomes: from its parameter count, or exactly from its file, folder or configuration."""

import os
import re
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from quantrs.errors import FileError, InputError, UsageError
from quantrs.fitting import BestTypes, Fits, RunningMemory, SizeRequest, best_types
from quantrs.open_model import open_model
from quantrs.options import QuantizeOptions
from quantrs.plan import Plan
from quantrs.schemes import FILE_TYPES, FLOATS, is_quantized, tensor_types, writable

if TYPE_CHECKING:
    from quantrs._native import Gguf

__all__ = [
    "BitsRow",
    "FileTypeRow",
    "KvRow",
    "ModelSizes",
    "ParameterSizes",
    "TensorTypeRow",
    "parameter_count",
    "size",
    "size_of_model",
    "size_of_parameters",
]

_BITS = (32, 16, 8, 4, 3, 2)
_COUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?(?:e[0-9]{1,2})?)([kmbt]?)", re.IGNORECASE)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}


@dataclass(frozen=True)
class BitsRow:
    """Size at a round number of bits per weight, scales not counted."""

    bits: int
    weights_gb: float
    """Decimal gigabytes."""


@dataclass(frozen=True)
class TensorTypeRow:
    """Size with every weight in one tensor type, scales counted."""

    name: str
    bits_per_weight: float
    weights_gb: float
    """Decimal gigabytes."""
    can_write: bool


@dataclass(frozen=True)
class FileTypeRow:
    """Size of the file that ``quantize --to NAME`` writes, its metadata and padding included, and of the running model."""

    name: str
    weights_bytes: int | None
    """None where no such file is possible."""
    bits_per_weight: float | None
    """Of the tensor data alone, over all tensors."""
    can_write: bool
    note: str
    """Why it is not possible, or not without more options; empty when all is well."""
    buffer_bytes: int | None
    """Of all sequences; None where the model cannot be run, or not known."""
    total_bytes: int | None
    """File, keys and values, buffers; of a model that cannot be run the file alone."""
    fits: Fits


@dataclass(frozen=True)
class ParameterSizes:
    """What `size_of_parameters` found."""

    n_parameters: int
    bits: tuple[BitsRow, ...]
    types: tuple[TensorTypeRow, ...]

    def to_json(self) -> dict[str, object]:
        """A JSON value with ``parameters``, ``bits`` and ``types``."""
        return {"parameters": self.n_parameters, "bits": [vars(row) for row in self.bits], "types": [vars(row) for row in self.types]}


@dataclass(frozen=True)
class KvRow:
    """Size of all keys and values, kept as one type."""

    name: str
    bytes: int | None
    """Of all sequences; None where the heads are no whole blocks of the type."""


@dataclass(frozen=True)
class ModelSizes:
    """What `size_of_model` found."""

    path: str
    n_parameters: int
    source_bytes: int
    context: int | None
    """Tokens per sequence; None for a model that cannot be run."""
    trained_context: int | None
    batch: int
    kv_type: str
    """What the totals count."""
    kv_cache: tuple[KvRow, ...]
    """Empty for a model that cannot be run."""
    types: tuple[FileTypeRow, ...]
    best: BestTypes
    notices: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """A JSON value with all fields; ``n_parameters`` is called ``parameters``."""
        value = asdict(self)
        return {"path": value.pop("path"), "parameters": value.pop("n_parameters"), **value}


def size(what: str, request: SizeRequest | None = None) -> ParameterSizes | ModelSizes:
    """Sizes for the text of the command line: a parameter count such as ``70B``, or a model (``./70B`` if it is named so).

    Raises
    ------
    FileError, FormatError, InputError
        `what` names a model that is absent, damaged or of an unknown kind.
    UsageError
        `what` is neither.
    """
    if _COUNT.fullmatch(what.strip()):
        if request is not None and (request.budgets or request.hardware is not None or request.n_ctx is not None):
            raise UsageError(f"{what}: a parameter count says nothing about memory besides weights; give a model or its config.json")
        return size_of_parameters(parameter_count(what))
    try:
        return size_of_model(what, request)
    except FileError:
        if what.lower().endswith((".gguf", ".json", ".safetensors")) or "/" in what or "\\" in what or os.path.exists(what):  # noqa: PTH110 - a Path refuses long names
            raise
    raise UsageError(f"found {what!r}, expected a model, its config.json, or a parameter count such as 70B, 1.5B, 135M or 7e9")


def parameter_count(text: str) -> int:
    """Read a parameter count.

    Raises
    ------
    UsageError
        It is not one.

    Examples
    --------
    >>> parameter_count("70B"), parameter_count("1.5b"), parameter_count("7e9")
    (70000000000, 1500000000, 7000000000)
    """
    match = _COUNT.fullmatch(text.strip())
    count = round(float(match[1]) * _UNITS[match[2].lower()]) if match else 0
    if not 0 < count < 10**18:
        raise UsageError(f"found {text!r}, expected a parameter count such as 70B, 1.5B, 135M or 7e9")
    return count


def size_of_parameters(n_parameters: int) -> ParameterSizes:
    """Sizes of `n_parameters` weights, at round bit counts and as every tensor type that a model file can hold.

    Examples
    --------
    >>> [(row.bits, row.weights_gb) for row in size_of_parameters(70 * 10**9).bits]
    [(32, 280.0), (16, 140.0), (8, 70.0), (4, 35.0), (3, 26.25), (2, 17.5)]
    """
    types = []
    for row in tensor_types().values():
        if row.name in FLOATS or (is_quantized(row.name) and row.name not in ("Q8_1", "Q8_K")):
            bits = 8 * row.block_bytes / row.block_len
            types.append(TensorTypeRow(row.name, bits, _gigabytes(n_parameters, bits), writable(row.name)))
    types.sort(key=lambda row: -row.bits_per_weight)
    return ParameterSizes(n_parameters, tuple(BitsRow(bits, _gigabytes(n_parameters, bits)) for bits in _BITS), tuple(types))


def size_of_model(path: str | Path, request: SizeRequest | None = None) -> ModelSizes:
    """The exact size of the file that quantizing a model (requantizing, if need be) gives, for every file type, and what running it
    takes.

    Parameters
    ----------
    path : path-like
        A GGUF file, a checkpoint folder, or a ``config.json`` alone.
    request : SizeRequest, optional
        Context, number of sequences, and the memory that there is.

    Examples
    --------
    >>> sizes = size_of_model("model.gguf", SizeRequest(n_ctx=4096))
    >>> [(row.name, row.bytes) for row in sizes.kv_cache]
    [('f32', 4194304), ('f16', 2097152), ('q8_0', 1114112), ('q4_0', 589824)]
    """
    request = request or SizeRequest()
    gguf, described_bytes, notices = _open(path, request)
    n_parameters = sum(prod(info.dims) for info in gguf.tensors)
    memory = RunningMemory.of(gguf, request)
    rows, source_bytes = [], 0
    for row in FILE_TYPES:
        if row.default_type is None:
            continue
        try:
            plan = Plan.for_gguf(gguf, QuantizeOptions(to=row.name, allow_requantize=True))
        except InputError as error:
            rows.append(FileTypeRow(row.name, None, None, False, str(error), None, None, {}))
            continue
        source_bytes = plan.source_bytes if described_bytes is None else described_bytes
        bits = 8 * sum(tensor.nbytes for tensor in plan.tensors) / n_parameters if n_parameters else 0.0
        can_write = all(tensor.copied or writable(tensor.target_type) for tensor in plan.tensors)
        buffers, total = memory.besides(plan)
        fits = request.fits(total)
        rows.append(FileTypeRow(row.name, plan.file_bytes, bits, can_write, "; ".join(plan.refusals), buffers, total, fits))
    rows.sort(key=lambda row: -(row.weights_bytes or 0))
    return ModelSizes(
        str(path),
        n_parameters,
        source_bytes,
        memory.n_ctx,
        memory.trained_n_ctx,
        request.batch,
        request.kv_type,
        tuple(KvRow(name, n_bytes) for name, n_bytes in memory.kv_bytes.items()),
        tuple(rows),
        best_types(rows, request, source_bytes),
        (*notices, *memory.notices),
    )


def _open(path: str | Path, request: SizeRequest) -> "tuple[Gguf, int | None, tuple[str, ...]]":
    """The model; of one that is only described, how large it would be, and what is to be said."""
    text = str(path)
    if not text.lower().endswith(".json") or text.endswith(".safetensors.index.json"):
        return open_model(path, pre=request.pre, arch=request.arch), None, ()
    from quantrs.huggingface.listing import describe

    described = describe(path, pre=request.pre)
    return described.gguf, described.weights_bytes, described.notices


def _gigabytes(n_parameters: int, bits: float) -> float:
    return n_parameters * bits / 8 / 10**9
