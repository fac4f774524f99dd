"""The plan: for every tensor of a model what it becomes, why, and where it goes in the written file."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantrs._native import Gguf, Imatrix, TensorInfo
    from quantrs.options import QuantizeOptions

__all__ = ["Plan", "PlannedFile", "TensorPlan"]


@dataclass(frozen=True, kw_only=True)
class TensorPlan:
    """One tensor of the written file."""

    name: str
    """Name in the written file (a pruned model's layers are numbered anew)."""
    dims: tuple[int, ...]
    """As stored in the file: row length first, no trailing dimensions of 1."""
    source_type: str
    target_type: str
    why: str
    """What decided the target type, for the reader of the plan."""
    nbytes: int
    """Bytes of data in the written file, without padding."""
    offset: int
    """From the start of the written file."""
    imatrix_name: str | None
    """Importance matrix entry to use; None when this tensor is converted without one."""
    source: TensorInfo

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows first, as NumPy counts dimensions: ``[..., out_features, in_features]``."""
        return tuple(reversed(self.dims))

    @property
    def n_cols(self) -> int:
        """Row length."""
        return self.dims[0]

    @property
    def n_rows(self) -> int:
        """Rows of all matrices together."""
        rows = 1
        for dim in self.dims[1:]:
            rows *= dim
        return rows

    @property
    def copied(self) -> bool:
        """The bytes go over as they are."""
        return self.source_type == self.target_type


@dataclass(frozen=True, kw_only=True)
class PlannedFile:
    """One file that will be written; several with ``keep_split``."""

    path: str
    header: bytes
    """Everything before the tensor data, padding included."""
    tensors: tuple[TensorPlan, ...]
    """In file order."""
    file_bytes: int
    """Size of the finished file."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What `quantize` is about to do; `check` says whether it may."""

    tensors: tuple[TensorPlan, ...]
    """Of all files, in the order in which they are written."""
    files: tuple[PlannedFile, ...]
    file_bytes: int
    """Of all written files."""
    source_bytes: int
    """Of all source files."""
    file_type: str
    """``Q4_K_M``."""
    notices: tuple[str, ...]
    """What the user should know, but what does not stop the work."""
    refusals: tuple[str, ...]
    """Why `quantize` would refuse this plan; empty when it would not."""
    options: QuantizeOptions
    imatrix: Imatrix | None

    @staticmethod
    def for_gguf(gguf: Gguf, options: QuantizeOptions, destination: str | None = None) -> Plan:
        """Plan the file(s) that quantizing `gguf` writes to `destination` (by default ``ggml-model-TYPE.gguf``).

        Raises
        ------
        UsageError
            An option names an unknown type, or holds a malformed pattern or value.
        InputError
            A tensor has no type that fits its shape.
        FileError, FormatError
            The importance matrix or the recipe cannot be read.
        """
        raise NotImplementedError

    def check(self) -> None:
        """Raise `InputError` with the refusals, if there are any."""

    def to_json(self) -> dict[str, object]:
        """A JSON value: ``file_type``, ``file_bytes``, ``source_bytes``, ``notices``, ``refusals``, ``tensors``: rows of name, shape, from, to, why, bytes."""
        raise NotImplementedError
