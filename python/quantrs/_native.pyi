"""Typed face of the Rust module. Written by hand; ``make lint`` checks it with stubtest."""

from collections.abc import Sequence
from os import PathLike
from typing import final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BlockFormat",
    "Cancelled",
    "Engine",
    "FileError",
    "FormatError",
    "Gguf",
    "GgufHeader",
    "Imatrix",
    "InputError",
    "PartFile",
    "Progress",
    "QuantrsError",
    "SafeTensors",
    "SourceFile",
    "TensorInfo",
    "TensorWritten",
    "__version__",
    "block_formats",
    "check_rows",
    "convert_rows",
    "default_threads",
    "level",
    "levels",
    "matmul",
    "matmul_i8",
    "read_bandwidth",
    "row_errors",
    "safetensors_header",
]

_Path = str | PathLike[str]
_Value = bool | int | float | str | list[bool] | list[int] | list[float] | list[str]

__version__: str

class QuantrsError(Exception):
    """Base of every error that quantrs raises itself."""

class InputError(QuantrsError, ValueError):
    """The values, types or shapes handed in cannot be used."""

class FileError(QuantrsError, OSError):
    """Reading or writing a file failed; the operating system's reason is in the message."""

class FormatError(QuantrsError, ValueError):
    """A file is not what it says: the message names offset and field."""

class Cancelled(QuantrsError):  # noqa: N818
    """`Progress.cancel` was called."""

def levels() -> list[str]:
    """CPU levels that this machine can run, lowest first (``scalar`` is always there)."""

def level() -> str:
    """The level in use: the highest of `levels`, or what ``QUANTRS_LEVEL`` names.

    Raises
    ------
    InputError
        ``QUANTRS_LEVEL`` is unknown or this CPU lacks it.
    """

def default_threads() -> int:
    """Threads used when none are asked for: the CPUs this process may run on."""

def read_bandwidth(n_bytes: int, *, threads: int | None = None, passes: int = 5) -> float:
    """Bytes per second that all threads together read from a buffer of this size, front to back: the best of some passes."""

@final
class BlockFormat:
    """One row of the block format registry."""

    name: str
    """As upstream spells it: ``Q4_K``."""
    id: int
    """ggml type id."""
    block_len: int
    """Elements per block."""
    block_bytes: int
    """Bytes per block."""
    importance: str
    """``ignored``, ``used`` or ``required``."""
    can_quantize: bool
    can_dequantize: bool

def block_formats() -> list[BlockFormat]:
    """Every ggml type that this build knows, by ascending id (I8 ... F64 included: neither can_* is true for those)."""

@final
class Progress:
    """Shared by a running `convert_rows` / `PartFile.write_tensor` and the thread that watches it."""

    def __new__(cls) -> Progress: ...
    @property
    def done(self) -> int:
        """Source bytes finished so far, over all calls that were given this object."""
    def cancel(self) -> None:
        """Make the running call, and every later one, raise `Cancelled` soon."""

def convert_rows(
    src: NDArray[np.uint8],
    src_type: str,
    dst: NDArray[np.uint8],
    dst_type: str,
    n_cols: int,
    *,
    importance: NDArray[np.float32] | None = None,
    threads: int | None = None,
) -> int:
    """Convert rows of `n_cols` values from one ggml type to another through float32, filling `dst`.

    `src` and `dst` are C-contiguous byte views of whole rows. `importance` is ``[n_cols]`` or ``[n_slices, n_cols]``
    (rows divide evenly over the slices). Returns the number of blocks whose value was clipped (NVFP4 only).

    Raises
    ------
    InputError
        Non-finite or too large values (row and column named), sizes that do not match, a type without a quantizer.
    """

def row_errors(
    packed: NDArray[np.uint8],
    packed_type: str,
    reference: NDArray[np.uint8],
    reference_type: str,
    n_cols: int,
    *,
    threads: int | None = None,
) -> tuple[float, float, float]:
    """(sum of squared differences, sum of squared reference values, largest absolute difference), summed in float64 in row order."""

def matmul(
    packed: NDArray[np.uint8],
    packed_type: str,
    x: NDArray[np.float32],
    out: NDArray[np.float32],
    *,
    exact: bool = False,
    threads: int | None = None,
) -> None:
    """``out[i, r] = sum over k of w[r, k] * x[i, k]``.

    Parameters
    ----------
    packed
        The rows w, of as many values as x has columns.
    x
        ``[n, n_cols]``, C-contiguous; rounded to int8 unless `exact` or w is of floats.
    out
        ``[n, n_rows]``, C-contiguous.
    """

def matmul_i8(
    a: NDArray[np.int8],
    b: NDArray[np.int8],
    out: NDArray[np.int32],
    *,
    threads: int | None = None,
) -> None:
    """``out[i, j] = sum over l of a[i, l] * b[j, l]``; a: ``[m, k]``, b: ``[n, k]``, out: ``[m, n]``, all C-contiguous."""

@final
class TensorInfo:
    name: str
    dims: tuple[int, ...]
    """As stored: row length first."""
    type_id: int
    type_name: str | None
    """None for a type id that this build does not know."""
    offset: int
    """From the start of the file."""
    nbytes: int
    """Bytes of data (for an unknown type: up to the next tensor or the end of the file)."""
    file: str
    """Path of the file that holds the data (splits have several)."""

@final
class Gguf:
    """The checked header of a GGUF file; for a split model of all its files. No tensor data is read."""

    @staticmethod
    def open(path: _Path) -> Gguf:
        """Open a file; the first file of a split model opens all of them.

        Raises
        ------
        FileError, FormatError
        """
    version: int
    alignment: int
    data_offset: int
    file_size: int
    files: list[str]
    """Paths; one unless the model is split."""
    split_sizes: list[int]
    """Number of tensors in each of `files`."""
    notices: list[str]
    """What was accepted but is odd (unknown type ids, bad UTF-8 in values, missing final padding ...)."""
    def keys(self) -> list[str]: ...
    def get(self, key: str, /) -> _Value | None:
        """The value, decoded; strings that are not UTF-8 come with surrogate escapes. None when absent."""
    def value_type(self, key: str, /) -> str | None:
        """``u8 i8 u16 i16 u32 i32 f32 bool string u64 i64 f64``, or ``array[...]`` of one of those; None when absent."""
    def array_len(self, key: str, /) -> int | None:
        """Number of elements of an array value, without decoding it; None when absent or not an array."""
    tensors: list[TensorInfo]
    """In file order."""
    def header(self) -> GgufHeader:
        """A copy of version, alignment and all key/values (raw bytes kept) to edit; no tensors."""

@final
class GgufHeader:
    """What a GGUF file begins with, to be edited and serialised."""

    @staticmethod
    def new(version: int = 3) -> GgufHeader: ...
    def keys(self) -> list[str]: ...
    def set(self, key: str, value: _Value, value_type: str, /) -> None:
        """Remove `key` if present, then append it (the order in which llama.cpp's writer ends up)."""
    def remove(self, key: str, /) -> bool: ...
    def add_tensor(self, name: str, dims: Sequence[int], type_name: str, /) -> int:
        """Append a tensor; returns its offset from the start of the data section (running sum, padded to the alignment)."""
    def to_bytes(self) -> bytes:
        """Header, key/values, tensor infos and the padding before the data section."""
    data_len: int
    """Bytes of the data section: every tensor padded to the alignment."""

@final
class SafeTensors:
    """The checked header of a safetensors file. No tensor data is read."""

    @staticmethod
    def open(path: _Path) -> SafeTensors:
        """Open a file.

        Raises
        ------
        FileError, FormatError
            It cannot be read, or its header is not sound: sizes, types, offsets, doubles, gaps and overlaps are checked.
        """
    tensors: list[tuple[str, str, tuple[int, ...], int, int]]
    """Name, dtype (``BF16``), shape, offset from the start of the file and bytes, in the order of the data."""
    metadata: dict[str, str]
    """What stands under ``__metadata__``."""
    file_size: int

def safetensors_header(tensors: Sequence[tuple[str, str, Sequence[int]]], metadata: dict[str, str], /) -> tuple[bytes, list[int]]:
    """Everything before the data of a file with these tensors (name, dtype, shape), and where each begins, from the start of the file.

    Data lies end to end, by dtype (widest first) and name; the order given does not matter.

    Raises
    ------
    InputError
        An unknown dtype, or a name that is empty, reserved or there twice.
    """

@final
class Imatrix:
    """An importance matrix file, GGUF or legacy ``.dat``."""

    @staticmethod
    def open(path: _Path) -> Imatrix:
        """Raises FileError, FormatError (also for NaN, infinite or negative entries)."""
    names: list[str]
    """In the file's order."""
    datasets: list[str]
    chunk_count: int
    def values(self, name: str, /) -> list[float] | None:
        """Column weights of all experts, concatenated, in float32 precision."""
    def length(self, name: str, /) -> int | None: ...

@final
class SourceFile:
    """A file opened for positioned reads."""

    def __new__(cls, path: _Path) -> SourceFile: ...
    def read(self, offset: int, length: int, /) -> bytes: ...

@final
class PartFile:
    """The output while it is being written."""

    @staticmethod
    def create(path: _Path, size: int) -> PartFile:
        """Create or truncate, and reserve `size` bytes (FileError when the disk has no room)."""
    @staticmethod
    def reopen(path: _Path, size: int) -> PartFile:
        """Open an existing part file of exactly `size` bytes, keeping its content."""
    def write(self, offset: int, data: bytes, /) -> None: ...
    def write_tensor(
        self,
        offset: int,
        dst_type: str,
        src: SourceFile,
        src_offset: int,
        src_type: str,
        n_rows: int,
        n_cols: int,
        *,
        name: str,
        imatrix: Imatrix | None = None,
        threads: int | None = None,
        measure: bool = False,
        progress: Progress | None = None,
    ) -> TensorWritten:
        """Read rows at `src_offset`, convert, write at `offset`. With `imatrix` the column weights of `name` are used.

        Equal types copy the bytes. Data goes chunk by chunk: memory is a few MB per thread.
        """
    def copy_bytes(self, offset: int, src: SourceFile, src_offset: int, nbytes: int, *, progress: Progress | None = None) -> TensorWritten:
        """Copy raw bytes (types that this build does not know)."""
    def checksum(self, offset: int, nbytes: int, /) -> int:
        """CRC-32 of a written range, for resuming."""
    def sync(self) -> None: ...
    def close(self) -> None: ...

@final
class TensorWritten:
    crc32: int
    clipped_blocks: int
    sum_squared_error: float
    """NaN unless measured."""
    sum_squared: float
    max_error: float

def check_rows(path: _Path, offset: int, type_name: str, n_rows: int, n_cols: int, *, threads: int | None = None) -> str | None:
    """Look for scales and values that are infinite or NaN; a text naming row and block, or None when all is well."""

@final
class Engine:
    """A model at work: weights mapped from the file, and a context of tokens. Threads may share it; calls wait for each other."""

    @staticmethod
    def load(gguf: Gguf, graph: str, *, n_ctx: int, threads: int | None = None, activations: str = "int8", kv_type: str = "f16") -> Engine:
        """Map the model's files and find the tensors that `graph` (JSON of a `quantrs.families.GraphSpec`) names.

        Raises
        ------
        FileError, FormatError
            A file cannot be mapped, or a tensor is missing, left over, or of another shape or type than the graph says.
        InputError
            An option or a field of the graph is out of range.
        """
    n_past: int
    """Tokens in the context."""
    n_ctx: int
    """Tokens that the context holds."""
    n_vocab: int
    n_embd: int
    n_blocks: int
    threads: int
    cache_bytes: int
    """Bytes of keys and values held now."""
    def truncate(self, n: int, /) -> None:
        """Forget all tokens but the first `n`."""
    def reset(self) -> None:
        """Forget all tokens."""
    def forward(self, ids: Sequence[int], wanted: str = "last") -> NDArray[np.float32]:
        """Append tokens and compute what follows them.

        `wanted`: ``last`` gives the logits of the last token ``[1, n_vocab]``, ``all`` those of every token ``[n, n_vocab]``,
        ``hidden`` what the output matrix would be multiplied with ``[n, n_embd]``. After an error the context is what it was.

        Raises
        ------
        InputError
            No tokens, an id outside the vocabulary, or more tokens than the context has room for.
        FormatError
            A result is not finite; the message names the first block that it came from.
        """
    def n_shared(self, ids: Sequence[int], /) -> int:
        """How many of the first `ids` the context begins with."""
    def next_logits(self, ids: Sequence[int], /) -> NDArray[np.float32]:
        """Make `ids` the context and compute the logits of what follows, ``[n_vocab]``.

        Only what the context does not begin with already is computed, at least the last token. Errors are those of `forward`.
        """
    def score(self, ids: Sequence[int], first: int, /) -> NDArray[np.float64]:
        """Append tokens, and say how well they were predicted: -ln of the probability of token i + 1 after tokens 0 to i.

        ``[n - 1 - first]``, for i from `first` on. Logits are never held all at once. Errors as `forward`.
        """
    def compare(
        self, reference: Engine, ids: Sequence[int], first: int, /
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """`score` by this model and by another one, and compare their distributions.

        Four arrays ``[n - 1 - first]``: -ln of the probability by this model, by the reference, the Kullback-Leibler divergence of
        this model's distribution from the reference's in nats, and whether both find the same token likeliest.
        """
    def block_forward(self, block: int, x: NDArray[np.float32], /) -> NDArray[np.float32]:
        """One block alone over hidden states ``[n, n_embd]``, as the first tokens of a context. Empties the context."""
    def trace(self, ids: Sequence[int], *, tensors: Sequence[str], hidden: bool = False) -> dict[str, NDArray[np.float32]]:
        """`forward`, keeping inputs of linears by tensor name ``[n, in_features]``, and with `hidden` what goes into each block.

        Tensors that hold several experts come as ``NAME[expert]`` with the tokens routed there. Hidden states are called ``blk.0``
        to ``blk.n_blocks``, the last being what leaves the last block.
        """
