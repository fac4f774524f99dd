"""Typed face of the Rust module. Written by hand; ``make lint`` checks it with stubtest."""

from collections.abc import Sequence
from os import PathLike
from typing import final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "AssembledTensor",
    "BlockFormat",
    "Cancelled",
    "Engine",
    "FileError",
    "FormatError",
    "Gguf",
    "GgufHeader",
    "Hessian",
    "Imatrix",
    "ImatrixSums",
    "InputError",
    "Part",
    "PartFile",
    "Progress",
    "QuantrsError",
    "SafeTensors",
    "Sources",
    "TensorInfo",
    "TensorWritten",
    "__version__",
    "awq_clip",
    "awq_search",
    "block_formats",
    "check_tensor",
    "convert_rows",
    "default_threads",
    "gptq",
    "level",
    "levels",
    "matmul",
    "matmul_i8",
    "pack_codes",
    "quantize_groups",
    "read_bandwidth",
    "row_errors",
    "safetensors_header",
    "smooth_scales",
    "unpack_codes",
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

def pack_codes(codes: NDArray[np.uint8], bits: int, *, threads: int | None = None) -> NDArray[np.int32]:
    """Codes ``[n_rows, n_cols]`` as one little-endian stream of bits per row: words ``[n_rows, ceil(n_cols * bits / 32)]``.

    Raises
    ------
    InputError
        Bits are not 2 to 8, or a code does not fit (row and column named).
    """

def unpack_codes(words: NDArray[np.int32], bits: int, n_cols: int, *, threads: int | None = None) -> NDArray[np.uint8]:
    """Inverse of `pack_codes`: words ``[n_rows, ceil(n_cols * bits / 32)]`` to codes ``[n_rows, n_cols]``.

    Raises
    ------
    InputError
        Bits are not 2 to 8, or `n_cols` codes do not take as many words as a row has.
    """

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

def awq_search(
    weights: Sequence[NDArray[np.float32]],
    x: NDArray[np.float32],
    x_mean: NDArray[np.float32],
    *,
    outputs: str,
    bits: int,
    group_size: int,
    symmetric: bool,
    duo_scaling: bool,
    n_grid: int,
    rule: str = "awq",
    scale_type: str = "f32",
    scale_of: NDArray[np.uint32] | None = None,
    threads: int | None = None,
) -> tuple[int, NDArray[np.float32], NDArray[np.float64]]:
    """Index of the best ratio, its scales ``[in_features]`` and all losses ``[n_grid]``; see `quantrs.awq_search`.

    `outputs` is ``"gram"`` where x is ``2/T X^T X``, ``"linear"``, or the activation of a gated MLP.
    """

def awq_clip(
    w: NDArray[np.float32],
    x: NDArray[np.float32],
    *,
    is_gram: bool,
    bits: int,
    group_size: int,
    symmetric: bool,
    n_grid: int,
    n_steps: int,
    rule: str = "awq",
    scale_type: str = "f32",
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Thresholds ``[out_features, n_groups]``; see `quantrs.awq_clip`."""

def smooth_scales(
    x_max: NDArray[np.float32], weights: Sequence[NDArray[np.float32]], *, alpha: float = 0.5, threads: int | None = None
) -> NDArray[np.float32]:
    """Scales ``[in_features]``; see `quantrs.smooth_scales`."""

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
    """Path of the file that holds the data (splits have several); of an assembly the path or label that its first part lies in."""
    parts: list[Part]
    """What it is assembled from; empty for a tensor of a file."""
    add: float
    """Added to every value of an assembled tensor."""

@final
class Part:
    """Rows of a tensor that lie together in one source."""

    def __new__(cls, source: int, offset: int, stored: str, n_rows: int, order: str = "as_stored", n_heads: int = 0) -> Part:
        """Describe rows.

        Parameters
        ----------
        source
            Index of the source.
        offset
            Of the first byte, from the start of the source.
        stored
            A ggml type or a dtype of safetensors files: ``BF16``, ``F8_E4M3``, ``Q4_K``, ``I64`` ...
        n_rows
            Rows of the tensor.
        order
            ``as_stored``; ``halves_to_pairs``: within each of `n_heads` groups of d rows, stored row ``j * d / 2 + i`` is row ``2 * i + j``
            of the tensor; ``pairs_to_halves``: the inverse; ``transposed``: what is stored is ``[n_cols, n_rows]``.
        """
    @staticmethod
    def packed(
        codes: str,
        at: tuple[int, int],
        n_rows: int,
        *,
        scales: tuple[int, int],
        scale_type: str,
        group_size: int,
        bits: int = 8,
        group_rows: int = 1,
        scales_transposed: bool = False,
        divisor: tuple[int, int] | None = None,
        zeros: str = "middle",
        zeros_at: tuple[int, int] | None = None,
        g_idx: tuple[int, int] | None = None,
        order: str = "as_stored",
        n_heads: int = 0,
    ) -> Part:
        """Describe rows of a quantized linear: ``w[row, col] = (code - zero) * scale``, zero and scale being those of the row and of the
        column's group.

        A place is the index of a source and the first byte in it. Rows are outputs; words have 32 bits and hold codes as one stream, the
        first in the lowest bits.

        Parameters
        ----------
        codes
            ``rows``: words ``[n_rows, ceil(n_cols * bits / 32)]``; ``columns``: words ``[n_cols * bits / 32, n_rows]``, as GPTQ has them;
            ``awq``: words ``[n_cols, n_rows / 8]`` of 4 bits, output ``8 * i + j`` in nibble ``[0, 4, 1, 5, 2, 6, 3, 7][j]``; ``i8``,
            ``f8_e4m3``: bytes ``[n_rows, n_cols]``; ``f4_e2m1``: bytes ``[n_rows, n_cols / 2]``, the even column in the low half.
        at
            Where they begin.
        scales, scale_type
            Where ``[ceil(n_rows / group_rows), n_groups]`` scales begin, and what each is: ``F32``, ``F16``, ``BF16``, ``F8_E4M3``, or
            ``F8_E8M0``, an exponent plus 127.
        group_size, group_rows
            Columns and rows that share a scale; the last group may be smaller.
        bits
            2 to 8, of ``rows`` and ``columns``.
        scales_transposed
            What is stored is ``[n_groups, n_rows]``.
        divisor
            Where one float32 is that divides all scales.
        zeros, zeros_at
            ``middle``: ``2 ** (bits - 1)`` of unsigned codes, else 0. Or kind and place: ``columns``: words
            ``[n_groups, n_rows * bits / 32]``; ``columns_borrowed``, ``columns_wrapped``: the same, one less: taken from every lane of
            whole words (2, 4, 8 bits), or from each alone; ``awq``: words ``[n_groups, n_rows / 8]``; ``rows``: words
            ``[ceil(n_rows * bits / 32), n_groups]``; ``i8``: bytes ``[n_rows, n_groups]``.
        g_idx
            Where int32 ``[n_cols]`` begins: the group of every column; without it that is ``col // group_size``.
        order, n_heads
            As above, but for ``transposed``.
        """
    source: int
    offset: int
    stored: str
    """The type; of a packed part how its codes lie."""
    n_rows: int
    order: str
    n_heads: int
    is_packed: bool
    places: list[tuple[int, int]]
    """Where everything that it needs begins: source and byte, the values or codes first."""

@final
class AssembledTensor:
    """A tensor whose rows are those of its parts, one after the other, converted to its type through float32 where they are of another."""

    def __new__(cls, name: str, dims: Sequence[int], type_name: str, parts: Sequence[Part], add: float = 0.0) -> AssembledTensor:
        """`dims` begins with the row length; `add` is added to every value, in float32 (F32, F16 and BF16 only)."""
    name: str
    dims: list[int]
    type_name: str
    parts: list[Part]
    add: float

@final
class Hessian:
    """Sums ``X^T X`` of a layer's inputs."""

    def __new__(cls, n: int) -> Hessian: ...
    @property
    def n(self) -> int:
        """Inputs of the layer."""

    @property
    def n_tokens(self) -> int:
        """Tokens so far."""

    def add(self, x: NDArray[np.float32], *, threads: int | None = None) -> None:
        """Add the tokens of x ``[tokens, n]``."""

    def merge(self, other: Hessian, *, threads: int | None = None) -> None:
        """Add what another one has seen."""

    def matrix(self, *, threads: int | None = None) -> NDArray[np.float32]:
        """``2 / n_tokens * X^T X``, ``[n, n]``."""

def gptq(
    w: NDArray[np.float32],
    hessian: Hessian,
    *,
    bits: int,
    group_size: int,
    symmetric: bool,
    order: str = "natural",
    static_groups: bool = False,
    damp_percent: float = 0.01,
    block_size: int = 128,
    rule: str = "gptq",
    scale_type: str = "f32",
    mse: float | None = None,
    min_zero: int = 0,
    threads: int | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8], NDArray[np.int32], float, float]:
    """Quantize w ``[out, in]``: codes, scales, zero points, group of every column, damping used, loss.

    `order`: ``natural``, ``activation`` or ``group-aware``; the rest as of `quantize_groups`.
    """

def quantize_groups(
    w: NDArray[np.float32],
    *,
    bits: int,
    group_size: int,
    symmetric: bool,
    rule: str = "gptq",
    scale_type: str = "f32",
    mse: float | None = None,
    min_zero: int = 0,
    threads: int | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:
    """Round w ``[out, in]`` to grids: codes ``[out, in]``, scales and zero points ``[out, n_groups]``.

    `rule`: ``gptq``, ``gptq-wide``, ``minmax`` or ``awq``; `scale_type`: ``f32``, ``f16`` or ``bf16``.
    """

@final
class Gguf:
    """The checked header of a GGUF file, for a split model of all its files; or an assembly. No tensor data is read."""

    @staticmethod
    def open(path: _Path) -> Gguf:
        """Open a file; the first file of a split model opens all of them.

        Raises
        ------
        FileError, FormatError
        """
    @staticmethod
    def assembled(
        header: GgufHeader, sources: Sequence[_Path | tuple[str, NDArray[np.uint8]]], tensors: Sequence[AssembledTensor], /
    ) -> Gguf:
        """Make a model that exists as no file: `header`'s key/values, and tensors whose rows lie in `sources`.

        A source is a path, or a label and contiguous bytes ``[n_bytes]``; these are lent: nobody may write to them as long as the model,
        or an engine that was loaded from it, is in use. Names may be longer than GGUF allows, and dimensions more than 4.

        Raises
        ------
        FileError
            A source cannot be opened.
        InputError
            A tensor's parts do not make it up, or lie outside their source.
        """
    def selected(
        self,
        names: Sequence[str],
        sources: Sequence[_Path | tuple[str, NDArray[np.uint8]]] = ...,
        tensors: Sequence[AssembledTensor] = ...,
        /,
    ) -> Gguf:
        """A model of the tensors `names` of this one, and of further `tensors`, with the same key/values.

        Parts of further tensors count the further `sources` on after those of this model. Errors as `assembled`, and for a name that
        the model lacks.
        """
    is_assembled: bool
    version: int
    alignment: int
    data_offset: int
    file_size: int
    """Bytes of all files; of an assembly those of all its sources."""
    files: list[str]
    """Paths of what is read; one unless the model is split or assembled."""
    sources: list[str]
    """Paths and labels of everything that tensors lie in."""
    def memory_checksums(self) -> list[tuple[str, int]]:
        """Labels of the sources in memory, and CRC-32 of their bytes as they are now."""
    split_sizes: list[int]
    """Number of tensors in each source."""
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
    def containing_types(self) -> list[list[str]]:
        """For each tensor the block types that hold the very values of its packed parts, the smallest first; none for other tensors.

        Scales and zero points are read, codes are not.

        Raises
        ------
        FileError
            A source cannot be read.
        FormatError
            A scale is not finite, or a group out of range.
        """
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
        """Append a tensor; returns its offset from the start of the data section (running sum, padded to the alignment).

        `dims` is written as it is, trailing sizes of 1 too.
        """
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
class ImatrixSums:
    """An importance matrix while it is computed: sums of squares in float64, and counts of tokens. Threads may share it."""

    def __new__(cls, chunk_size: int, /) -> ImatrixSums: ...
    datasets: list[str]
    chunk_count: int
    """Chunks seen by the weight that saw most."""
    def assume_sequences(self, n: int, /) -> None:
        """As if so many sequences of nothing had been added: what a plan has to know of a matrix that is not computed yet."""
    n_sequences: int
    """Sequences that `Engine.sum_squares` added whole."""
    def add_dataset(self, name: str, /) -> None:
        """Note a text; it is the last one now."""
    def expect(self, engine: Engine, /, *, with_output: bool = False) -> None:
        """Make room for what `Engine.sum_squares` adds.

        Raises
        ------
        InputError
            There are sums of another model.
        """
    def counts(self) -> dict[str, list[int]]:
        """Tokens that went into each weight; into each of its experts where it has several."""
    def merge(self, path: _Path, /) -> None:
        """Add a file of either form; the legacy one counts chunks, taken to have `chunk_size` tokens.

        Raises
        ------
        FileError, FormatError
            It cannot be read or is damaged.
        InputError
            It is of another model than what is there.
        """
    def state(self) -> bytes:
        """All sums and counts as they are, for `restore`."""
    def restore(self, state: bytes, /) -> bool:
        """Take up the `state` of sums of the same weights; False, with nothing changed, when it is not one."""
    def to_bytes(self, *, legacy: bool = False) -> bytes:
        """A file, as llama-imatrix writes it: GGUF, or ``.dat``."""

@final
class Sources:
    """Where a model's tensors lie, to be read; files are opened at the first read and stay open."""

    def __new__(cls, gguf: Gguf) -> Sources: ...
    def read(self, tensor: TensorInfo, /) -> bytes:
        """All data of a tensor, in its type.

        Raises
        ------
        FileError
            A file cannot be read.
        InputError
            The tensor is another model's, or its parts cannot be converted to its type.
        """
    def read_rows(self, tensor: TensorInfo, first_row: int, n_rows: int, /) -> bytes:
        """Some rows of a tensor, in its type; by the calling thread alone. Errors as `read`, and for rows that are not there.

        A part that is to be transposed is read whole each time.
        """

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
        sources: Sources,
        tensor: TensorInfo,
        *,
        name: str,
        imatrix: Imatrix | None = None,
        threads: int | None = None,
        measure: bool = False,
        progress: Progress | None = None,
    ) -> TensorWritten:
        """Read a tensor, convert it, write it at `offset`. With `imatrix` the column weights of `name` are used.

        Equal types copy the bytes. Data goes chunk by chunk: memory is a few MB per thread, and a part that is to be transposed is
        held whole.
        """
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

def check_tensor(sources: Sources, tensor: TensorInfo, *, threads: int | None = None) -> str | None:
    """Look for scales and values that are infinite or NaN; a text naming row and block, or None when all is well."""

@final
class Engine:
    """A model at work: weights mapped from the files, and a context of tokens. Threads may share it; calls wait for each other."""

    @staticmethod
    def load(gguf: Gguf, graph: str, *, n_ctx: int, threads: int | None = None, activations: str = "int8", kv_type: str = "f16") -> Engine:
        """Map the model's files and find the tensors that `graph` (JSON of a `quantrs.families.GraphSpec`) names.

        Tensors of an assembly that do not lie as they are used are read into memory.

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
    def block_trace(
        self, block: int, x: NDArray[np.float32], tensors: Sequence[str], /
    ) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float32]]:
        """`block_forward`, keeping inputs of linears as `trace` does: these, and what leaves the block."""
    def sum_squares(self, ids: Sequence[int], sums: ImatrixSums, /, *, with_output: bool = False) -> None:
        """Run the first tokens of a context, adding the squares of what goes into each linear of the blocks to `sums`.

        `with_output`: of what the output matrix is multiplied with too. Empties the context. No logits are computed.

        Raises
        ------
        InputError
            As `forward`, or `sums` are of another model.
        FormatError
            A value is not finite; the message names the tensor whose input it is. `sums` are spoilt then.
        """
    def embed(self, ids: Sequence[int], /) -> NDArray[np.float32]:
        """What goes into the first block, for the first tokens of a context: ``[n, n_embd]``. Empties the context."""
    def trace(self, ids: Sequence[int], *, tensors: Sequence[str], hidden: bool = False) -> dict[str, NDArray[np.float32]]:
        """`forward`, keeping inputs of linears by tensor name ``[n, in_features]``, and with `hidden` what goes into each block.

        Tensors that hold several experts come as ``NAME[expert]`` with the tokens routed there. Hidden states are called ``blk.0``
        to ``blk.n_blocks``, the last being what leaves the last block.
        """
