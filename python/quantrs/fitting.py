"""What is asked about a model's memory, and which type fits into it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from quantrs.errors import InputError, QuantrsError
from quantrs.families import graph_of
from quantrs.hardware import Device, Kind, find_devices, usable_bytes
from quantrs.memory import KV_TYPES, buffer_bytes, kv_cache_bytes
from quantrs.schemes import FLOATS

if TYPE_CHECKING:
    from quantrs._native import Gguf
    from quantrs.families import GraphSpec
    from quantrs.plan import Plan

__all__ = ["BestTypes", "Fits", "RunningMemory", "SizeRequest", "best_types"]

Fits = Mapping[str, bool]
"""Whether something fits, by ``ram`` and ``vram``, as far as they were given."""

BestTypes = Mapping[str, str | None]
"""The best type that fits, by ``ram``, ``vram`` and names of devices; None where none does."""


@dataclass(frozen=True, kw_only=True)
class SizeRequest:
    """What running the model should be reckoned with."""

    n_ctx: int | None = None
    """Tokens per sequence; when not given what the model was made for, at most 4096, as `Session` has it."""
    batch: int = 1
    """Sequences at once, each with a context of its own."""
    kv_type: str = "f16"
    ram: int | None = None
    """Bytes of the machine's memory."""
    vram: int | None = None
    """Bytes of a graphics card's memory."""
    hardware: str | None = None
    """Words in the names of devices; empty for all of the table."""
    pre: str | None = None
    """As `open_model` takes it."""
    arch: str | None = None

    def __post_init__(self) -> None:
        for name, value in (("context", self.n_ctx), ("batch", self.batch), ("ram", self.ram), ("vram", self.vram)):
            if value is not None and not 0 < value < 2**60:
                raise InputError(f"{name}: found {value}, expected a number of 1 or more")
        if self.kv_type not in KV_TYPES:
            raise InputError(f"kv_type: found {self.kv_type!r}, expected one of {', '.join(KV_TYPES)}")

    @property
    def budgets(self) -> dict[Kind, int]:
        """Bytes that a model may take."""
        given: tuple[tuple[Kind, int | None], ...] = (("ram", self.ram), ("vram", self.vram))
        return {kind: usable_bytes(memory, kind) for kind, memory in given if memory is not None}

    @property
    def devices(self) -> tuple[Device, ...]:
        """Devices that were asked for."""
        return () if self.hardware is None else find_devices(self.hardware)

    def fits(self, total_bytes: int) -> Fits:
        """Whether a total is within each of the budgets."""
        return {kind: total_bytes <= budget for kind, budget in self.budgets.items()}


@dataclass(frozen=True)
class RunningMemory:
    """What the model needs besides its weights."""

    graph: "GraphSpec | None"
    """None for a model that the engine cannot run."""
    n_ctx: int | None
    trained_n_ctx: int | None
    kv_bytes: dict[str, int | None]
    """By type, of all sequences."""
    notices: tuple[str, ...]
    request: SizeRequest

    @staticmethod
    def of(gguf: "Gguf", request: SizeRequest) -> "RunningMemory":
        """Read the graph and add up.

        Raises
        ------
        InputError
            The cache cannot have the type that was asked for.
        """
        try:
            graph, n_ctx = graph_of(gguf, n_ctx=request.n_ctx)
        except QuantrsError as error:
            return RunningMemory(None, None, None, {}, (f"memory besides weights is not known: {error}",), request)
        kv_bytes: dict[str, int | None] = {}
        for kv_type in KV_TYPES:
            one = kv_cache_bytes(graph, kv_type, n_ctx)
            kv_bytes[kv_type] = None if one is None else request.batch * one
        if kv_bytes[request.kv_type] is None:
            k_dim = graph.blocks[0].attention.k_dim
            raise InputError(f"heads of {k_dim} values are no whole blocks of {request.kv_type}; keep keys and values as f16")
        notices = []
        if n_ctx > graph.n_ctx_train:
            notices.append(f"the model was made for contexts of {graph.n_ctx_train} tokens, fewer than {n_ctx}")
        return RunningMemory(graph, n_ctx, graph.n_ctx_train, kv_bytes, tuple(notices), request)

    def besides(self, plan: "Plan") -> tuple[int | None, int]:
        """Bytes of buffers, and of everything together, for the model as planned."""
        if self.graph is None or self.n_ctx is None:
            return None, plan.file_bytes
        matrices = [tensor.target_type for tensor in plan.tensors if tensor.n_rows > 1 and tensor.name.startswith("blk.")]
        has_floats = sum(name in FLOATS for name in matrices) > len(matrices) / 2
        buffers = self.request.batch * buffer_bytes(self.graph, self.n_ctx, float_weights=has_floats)
        return buffers, plan.file_bytes + (self.kv_bytes[self.request.kv_type] or 0) + buffers


_FEW_VALUES = frozenset({"TQ1_0", "TQ2_0", "Q1_0", "Q2_0"})


class _Row(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def weights_bytes(self) -> int | None: ...
    @property
    def total_bytes(self) -> int | None: ...
    @property
    def can_write(self) -> bool: ...
    @property
    def note(self) -> str: ...


def best_types(rows: Sequence[_Row], request: SizeRequest, source_bytes: int) -> BestTypes:
    """The largest type that fits, for each memory that was asked about.

    Not among them: types that quantrs cannot write, those larger than the source, which would add nothing but bytes, and those of one
    or three values a weight, which only models made for them survive. Types that need an importance matrix come after all others.
    """
    budgets: dict[str, int] = {**request.budgets} | {d.name: usable_bytes(d.memory_bytes, d.kind) for d in request.devices}
    most = 1.01 * source_bytes
    ranked = sorted(
        (row for row in rows if row.total_bytes is not None and row.can_write and row.name not in _FEW_VALUES and _size(row) <= most),
        key=lambda row: (bool(row.note), -_size(row)),
    )
    return {name: next((row.name for row in ranked if (row.total_bytes or 0) <= budget), None) for name, budget in budgets.items()}


def _size(row: _Row) -> int:
    return row.weights_bytes or 0
