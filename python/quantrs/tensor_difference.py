"""Tensors of two files side by side, some rows at a time."""

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from quantrs import _native, block_types
from quantrs.errors import Cancelled
from quantrs.type_tolerance import is_bounded_each, row_tolerance, tolerance

if TYPE_CHECKING:
    import numpy.typing as npt

    from quantrs._native import Gguf, TensorInfo

__all__ = ["Counter", "TensorDifference", "compare_tensors"]

_VALUES_AT_A_TIME = 1 << 19
_NORM_ROUNDING = np.float32(2.0**-24)
"""Checkpoints keep Gemma's norms without the 1 that GGUF files add: on the way back the sum has been rounded."""
_Pair = tuple["TensorInfo", "TensorInfo"]


@dataclass(frozen=True, kw_only=True)
class TensorDifference:
    """How far a tensor of B is from that of A."""

    name: str
    types: str
    """``F16/Q4_K``, or ``F16`` where it is the same."""
    squared_error: float
    squared: float
    """Sum of the squared values of the finer one; rows whose bytes are equal are not decoded, and count as 0."""
    squared_limit: float
    max: float
    finding: str
    """What is wrong; empty when nothing is."""


class Counter:
    """Bytes that are done, counted by several threads."""

    def __init__(self) -> None:
        self.cancelled = False
        self.done = 0
        self._lock = threading.Lock()

    def add(self, n_bytes: int) -> None:
        """So many more; the moment at which a wish to stop is heard."""
        if self.cancelled:
            raise Cancelled("the comparison was cancelled")
        with self._lock:
            self.done += n_bytes

    def cancel(self) -> None:
        """Stop soon."""
        self.cancelled = True


@dataclass(frozen=True)
class _Rows:
    """What a few rows come to."""

    first_row: int
    squared_error: float = 0.0
    squared: float = 0.0
    squared_limit: float = 0.0
    max: float = 0.0
    n_beyond: int = 0
    first_beyond: int = 0
    worst: float = 0.0
    """Of those beyond: error over limit."""


def compare_tensors(a: "Gguf", b: "Gguf", pairs: Sequence[_Pair], *, threads: int, progress: Counter) -> list[TensorDifference]:
    """Compare tensors of equal shape, in the order of `pairs`."""
    parts: list[list[_Rows]] = [[] for _ in pairs]
    work = _pieces(pairs)
    lock = threading.Lock()
    errors: list[BaseException] = []

    sources = (_native.Sources(a), _native.Sources(b))

    def run() -> None:
        try:
            while not errors:
                with lock:
                    piece = next(work, None)
                if piece is None:
                    return
                index, first_row, n_rows = piece
                parts[index].append(_compare_rows(sources, pairs[index], first_row, n_rows))
                progress.add(sum(tensor.nbytes * n_rows // max(1, prod(tensor.dims[1:])) for tensor in pairs[index]))
        except BaseException as error:  # handed over to the caller
            errors.append(error)

    workers = [threading.Thread(target=run, name="quantrs-compare") for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]
    return [_summed(pair, sorted(rows, key=lambda r: r.first_row)) for pair, rows in zip(pairs, parts, strict=True)]


def _pieces(pairs: Sequence[_Pair]) -> Iterator[tuple[int, int, int]]:
    """Tensor, first row, rows; all at once of types that are not known."""
    for index, (tensor, other) in enumerate(pairs):
        n_rows = prod(tensor.dims[1:])
        step = max(1, _VALUES_AT_A_TIME // max(1, tensor.dims[0]))
        if tensor.type_name is None or other.type_name is None:
            step = max(1, n_rows)
        for first_row in range(0, n_rows if tensor.dims[0] else 0, step):
            yield index, first_row, min(step, n_rows - first_row)


def _compare_rows(sources: "tuple[_native.Sources, _native.Sources]", pair: _Pair, first_row: int, n_rows: int) -> _Rows:
    a, b = (_read(source, tensor, first_row, n_rows) for source, tensor in zip(sources, pair, strict=True))
    type_a, type_b = (tensor.type_name for tensor in pair)
    if type_a == type_b and np.array_equal(a, b):
        return _Rows(first_row)
    if type_a is None or type_b is None or not (_decodable(type_a) and _decodable(type_b)):
        return _Rows(first_row, max=math.inf, n_beyond=n_rows, first_beyond=first_row, worst=math.inf)
    n_cols = pair[0].dims[0]
    x, y = _decode(a, type_a, n_cols), _decode(b, type_b, n_cols)
    finer = x if _bits(type_a) >= _bits(type_b) else y
    with np.errstate(all="ignore"):  # what is not finite counts as beyond every limit
        error = np.abs(x - y)
        squared = _sums_of_squares(finer)
        squared_error = _sums_of_squares(error)
        if is_bounded_each(type_a) and is_bounded_each(type_b):
            each = tolerance(type_a, finer) + tolerance(type_b, finer)
            if len(pair[0].dims) == 1:
                each += _NORM_ROUNDING
            squared_limit = _sums_of_squares(each)
            ratio = np.max(np.where(error <= each, 0, error / each), axis=1)
            beyond = ~np.all(error <= each, axis=1)
        else:
            squared_limit = np.minimum(np.square(row_tolerance(type_a, finer) + row_tolerance(type_b, finer)), squared)
            beyond = ~(squared_error <= squared_limit)
            ratio = np.sqrt(squared_error / squared_limit)
        return _Rows(
            first_row,
            math.fsum(squared_error),
            math.fsum(squared),
            math.fsum(squared_limit),
            float(error.max()),
            int(beyond.sum()),
            first_row + int(beyond.argmax()),
            float(ratio[beyond].max()) if beyond.any() else 0.0,
        )


def _read(source: "_native.Sources", tensor: "TensorInfo", first_row: int, n_rows: int) -> "npt.NDArray[np.uint8]":
    data = source.read(tensor) if tensor.type_name is None else source.read_rows(tensor, first_row, n_rows)
    return np.frombuffer(data, np.uint8)


def _decodable(type_name: str) -> bool:
    return type_name == "F32" or block_types.find(type_name).can_dequantize


def _decode(data: "npt.NDArray[np.uint8]", type_name: str, n_cols: int) -> "npt.NDArray[np.float32]":
    if type_name == "F32":
        return data.view("<f4").reshape(-1, n_cols)
    n_rows = len(data) // block_types.find(type_name).row_bytes(n_cols)
    out = np.empty((n_rows, n_cols), np.float32)
    _native.convert_rows(data, type_name, out.reshape(-1).view(np.uint8), "F32", n_cols, threads=1)
    return out


def _bits(type_name: str) -> float:
    """What orders types by how little they round; BF16 has as many bits as F16, but rounds more."""
    return block_types.find(type_name).bits_per_weight - (type_name == "BF16")


def _sums_of_squares(values: "npt.NDArray[np.float32]") -> "npt.NDArray[np.float64]":
    """Of each row."""
    sums: npt.NDArray[np.float64] = np.sum(np.square(values, dtype=np.float64), axis=1)
    return sums


def _summed(pair: _Pair, rows: list[_Rows]) -> TensorDifference:
    type_a, type_b = (tensor.type_name or f"type {tensor.type_id}" for tensor in pair)
    n_beyond = sum(r.n_beyond for r in rows)
    finding = ""
    if n_beyond:
        bad = next(r for r in rows if r.n_beyond)
        worst = max(r.worst for r in rows)
        of = prod(pair[0].dims[1:])
        how = f"by up to {worst:.3g} times as much as {type_a}/{type_b} explains" if math.isfinite(worst) else f"({type_a}/{type_b})"
        finding = f"values differ {how}: {n_beyond} of {of} rows, the first is row {bad.first_beyond}"
    return TensorDifference(
        name=pair[0].name,
        types=type_a if type_a == type_b else f"{type_a}/{type_b}",
        squared_error=math.fsum(r.squared_error for r in rows),
        squared=math.fsum(r.squared for r in rows),
        squared_limit=math.fsum(r.squared_limit for r in rows),
        max=max((r.max for r in rows), default=0.0),
        finding=finding,
    )
