"""What a finished job has to say: sizes, speed, and how far the written tensors are from their source."""

import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from quantrs.text import human_bytes, printable, table

if TYPE_CHECKING:
    from quantrs.journal import Record
    from quantrs.plan import TensorPlan

__all__ = ["GroupError", "Report", "group_errors", "tensor_group"]

_LAYER = re.compile(r"^(?:\w+\.)?blk\.\d+\.|^(?:\w+\.)*?(?:layers|h)\.\d+\.")

_CODES = re.compile(r"\.(?:weight|qweight|weight_packed)$")


def tensor_group(name: str) -> str:
    """The part of a tensor's name that all layers share.

    Examples
    --------
    >>> tensor_group("blk.7.attn_q.weight"), tensor_group("blk.7.attn_q.bias"), tensor_group("output.weight")
    ('attn_q', 'attn_q.bias', 'output')
    >>> tensor_group("model.layers.7.self_attn.q_proj.weight")
    'self_attn.q_proj'
    >>> tensor_group("model.layers.7.self_attn.q_proj.qweight")
    'self_attn.q_proj'
    """
    return _CODES.sub("", _LAYER.sub("", name))


@dataclass(frozen=True, kw_only=True)
class GroupError:
    """The error of all converted tensors of one group, against their source."""

    group: str
    """``attn_q``, ``ffn_down`` ..."""
    types: tuple[str, ...]
    """Types written; of linears of a quantized folder, their schemes."""
    tensors: int
    measured: int
    """Fewer than `tensors` when an earlier run, that did not measure, wrote some of them."""
    exact: int
    """Of those `measured`: how many kept every value."""
    rmse: float
    """Root of the mean squared difference."""
    relative: float
    """Root of (sum of squared differences / sum of squared source values)."""
    sqnr_db: float
    """``-20 log10(relative)``."""
    max: float
    """Largest absolute difference."""


def group_errors(written: Iterable[tuple["TensorPlan", "Record"]]) -> tuple[GroupError, ...]:
    """Errors by tensor group, in the order in which groups first appear; groups without a measured tensor are left out."""
    groups: dict[str, list[tuple[TensorPlan, Record]]] = {}
    for tensor, record in written:
        if not tensor.copied and tensor.n_weights:
            groups.setdefault(tensor_group(tensor.name), []).append((tensor, record))
    return tuple(_group_error(name, members) for name, members in groups.items() if any(r.errors for _, r in members))


def _group_error(group: str, members: list[tuple["TensorPlan", "Record"]]) -> GroupError:
    measured = [(tensor, record.errors) for tensor, record in members if record.errors]
    squared_error = math.fsum(errors[0] for _, errors in measured)
    squared = math.fsum(errors[1] for _, errors in measured)
    n_values = sum(tensor.n_weights for tensor, _ in measured)
    relative = math.sqrt(squared_error / squared) if squared else (math.inf if squared_error else 0.0)
    return GroupError(
        group=group,
        types=tuple(dict.fromkeys(tensor.why if tensor.made else tensor.target_type for tensor, _ in members)),
        tensors=len(members),
        measured=len(measured),
        exact=sum(errors[0] == 0 for _, errors in measured),
        rmse=math.sqrt(squared_error / n_values) if n_values else 0.0,
        relative=relative,
        sqnr_db=-20 * math.log10(relative) if 0 < relative < math.inf else math.copysign(math.inf, 1 - relative),
        max=max(errors[2] for _, errors in measured),
    )


@dataclass(frozen=True, kw_only=True)
class Report:
    """The outcome of `quantrs.quantize_checkpoint`."""

    files: tuple[str, ...]
    """Written files."""
    file_type: str
    """``Q4_K_M``."""
    source_bytes: int
    file_bytes: int
    """Of all written files."""
    source_bits_per_weight: float
    bits_per_weight: float
    """Over all tensors, without metadata."""
    seconds: float
    """From opening the source to the synced and renamed file."""
    already_complete: bool = False
    """The output was there and whole; nothing was done."""
    tensors: int
    resumed_tensors: int = 0
    """Tensors that an earlier, unfinished run had written."""
    clipped_blocks: int = 0
    """Blocks with values beyond the type's range (NVFP4 only)."""
    notices: tuple[str, ...] = ()
    errors: tuple[GroupError, ...] = field(default=())
    """By tensor group, when measured."""

    @property
    def source_bytes_per_second(self) -> float:
        """Speed of the whole job, reading, writing and syncing included."""
        return self.source_bytes / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, object]:
        """A JSON value: all fields, and ``source_bytes_per_second``. Infinite decibels become null."""
        value = asdict(self) | {"source_bytes_per_second": self.source_bytes_per_second}
        value["errors"] = [
            {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(e).items()} for e in self.errors
        ]
        return value

    def __str__(self) -> str:
        name = printable(self.files[0]) + (f" and {len(self.files) - 1} more" if len(self.files) > 1 else "")
        if self.already_complete:
            return f"{name} is complete already: {human_bytes(self.file_bytes)}, {self.bits_per_weight:.2f} bits per weight; nothing to do"
        parts = [
            f"{name}: {human_bytes(self.source_bytes)} at {self.source_bits_per_weight:.2f} bits per weight -> "
            f"{human_bytes(self.file_bytes)} at {self.bits_per_weight:.2f} ({self.file_type}), "
            f"{100 * self.file_bytes / self.source_bytes:.0f} % of the size",
            f"{self.tensors} tensors in {self.seconds:.2f} s, {human_bytes(self.source_bytes_per_second)}/s"
            + (f"; {self.resumed_tensors} of them were done before" if self.resumed_tensors else ""),
        ]
        if self.clipped_blocks:
            parts.append(f"{self.clipped_blocks} blocks hold values beyond the type's range and were clipped")
        if self.errors:
            parts.append("\nerror against the source, by tensor group\n" + _error_table(self.errors))
        return "\n".join(parts)


def _error_table(errors: tuple[GroupError, ...]) -> str:
    return table(
        ["group", "types", "tensors", "rmse", "relative", "SQNR dB", "max"],
        [
            [
                e.group,
                "+".join(e.types),
                str(e.tensors) if e.measured == e.tensors else f"{e.measured} of {e.tensors}",
                f"{e.rmse:.3g}",
                f"{e.relative:.4f}",
                f"{e.sqnr_db:.1f}",
                f"{e.max:.3g}",
            ]
            for e in errors
        ],
        right="23456",
    )
