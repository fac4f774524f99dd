"""NumPy arrays in and out of block types."""

import math
import operator
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from quantrs import _native, block_types
from quantrs import threads as thread_counts
from quantrs.contiguous import contiguous_float32
from quantrs.errors import InputError, QuantrsWarning

if TYPE_CHECKING:
    import numpy.typing as npt

    _Index = int | slice | Sequence[int] | npt.NDArray[np.integer | np.bool_]

__all__ = ["ArrayError", "QuantizedArray", "matmul_i8", "quantize"]

_FLOAT_TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


@dataclass(frozen=True, kw_only=True)
class ArrayError:
    """How far an array is from its reference; all sums are taken in float64."""

    rmse: float
    """Root of the mean squared difference."""
    relative: float
    """Root of (sum of squared differences / sum of squared reference values)."""
    max: float
    """Largest absolute difference."""
    sqnr_db: float
    """Signal to quantization noise in decibels: ``-20 log10(relative)``; infinite when nothing differs."""

    @staticmethod
    def from_sums(squared_error: float, squared: float, largest: float, n_values: int) -> "ArrayError":
        """Finish what `_native.row_errors` summed up over `n_values` values."""
        if squared_error == 0:
            return ArrayError(rmse=0.0, relative=0.0, max=largest, sqnr_db=math.inf)
        relative = math.sqrt(squared_error / squared) if squared else math.inf
        return ArrayError(
            rmse=math.sqrt(squared_error / n_values),
            relative=relative,
            max=largest,
            sqnr_db=-20 * math.log10(relative) if math.isfinite(relative) else -math.inf,
        )


class QuantizedArray:
    """An array whose last axis is packed in blocks of a ggml type.

    Made by `quantize`, `QuantizedArray.from_bytes` or `Tensor.quantized`. Indexing selects along the leading axes and
    shares memory where NumPy would; the last axis stays whole. ``numpy.asarray(q)`` gives the values in float32.

    Examples
    --------
    >>> import numpy as np
    >>> import quantrs as qr
    >>> q = qr.quantize(np.full((3, 5, 64), 127, np.float32), "q8_0")
    >>> q.data.shape, q.data.dtype
    ((3, 5, 68), dtype('uint8'))
    >>> q[1].shape, q[:, 2:4].shape
    ((5, 64), (3, 2, 64))
    >>> np.asarray(q[0, 0])[:2]
    array([127., 127.], dtype=float32)
    """

    __slots__ = ("_data", "_n_cols", "_type")

    def __init__(self, data: "npt.NDArray[np.uint8]", type: str, n_cols: int) -> None:
        self._type = block_types.find(type)
        row_bytes = self._type.row_bytes(n_cols)
        if data.dtype != np.uint8 or data.ndim == 0 or data.shape[-1] != row_bytes:
            raise InputError(
                f"{self._type.name}: found {data.dtype} data of shape {data.shape}, expected uint8 of shape [..., {row_bytes}] "
                f"for rows of {n_cols} values"
            )
        self._data = data
        self._n_cols = n_cols

    @staticmethod
    def from_bytes(buffer: "bytes | bytearray | memoryview | npt.NDArray[np.uint8]", type: str, shape: Sequence[int]) -> "QuantizedArray":
        """Take packed bytes as they are, for instance a tensor's from a GGUF file.

        Parameters
        ----------
        buffer : bytes-like
            Exactly the bytes of all rows, in C order. The memory is shared, not copied.
        type : str
            Name of the type, in any letter case.
        shape : sequence of int
            ``[..., n_cols]``: the shape of the values, not of the bytes.

        Raises
        ------
        InputError
            The number of bytes does not fit type and shape, or there is no such type.

        Examples
        --------
        >>> import numpy as np
        >>> import quantrs as qr
        >>> q = qr.quantize(np.eye(32, dtype=np.float32), "q4_0")
        >>> back = qr.QuantizedArray.from_bytes(q.data.tobytes(), "Q4_0", (32, 32))
        >>> bool((back.dequantize() == q.dequantize()).all())
        True
        """
        block_type = block_types.find(type)
        dims = tuple(operator.index(n) for n in shape)
        if not dims or min(dims) < 0:
            raise InputError(f"{block_type.name}: found the shape {dims}, expected one or more axes, none negative")
        row_bytes = block_type.row_bytes(dims[-1])
        flat = np.frombuffer(buffer, np.uint8) if len(buffer) else np.empty(0, np.uint8)
        wanted = math.prod(dims[:-1]) * row_bytes
        if flat.size != wanted:
            raise InputError(f"{block_type.name}: found {flat.size} bytes for the shape {dims}, expected {wanted} ({row_bytes} a row)")
        return QuantizedArray(flat.reshape(*dims[:-1], row_bytes), type, dims[-1])

    @property
    def data(self) -> "npt.NDArray[np.uint8]":
        """The packed bytes: uint8 ``[..., row_bytes]``, leading axes as in `shape`."""
        return self._data

    @property
    def type(self) -> str:
        """Name of the block type in lower case: ``q4_k``."""
        return self._type.name

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the values: ``[..., n_cols]``."""
        return (*self._data.shape[:-1], self._n_cols)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self._data.ndim

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of `data`."""
        return self._data.nbytes

    @property
    def bits_per_weight(self) -> float:
        """Bits that one value takes, scales included."""
        return self._type.bits_per_weight

    def dequantize(
        self,
        dtype: "npt.DTypeLike | None" = None,
        *,
        out: "npt.NDArray[np.floating] | None" = None,
        threads: int | None = None,
    ) -> "npt.NDArray[np.floating]":
        """Unpack into floating point.

        Parameters
        ----------
        dtype : dtype, optional
            float32 (the default), float16, bfloat16 (of ``ml_dtypes``, or the text ``"bfloat16"``) or float64.
        out : ndarray, optional
            A C-contiguous array of this shape to fill; its dtype decides, `dtype` may be left out. Saves the cost of
            fresh memory, which is most of the time for large arrays.
        threads : int, optional
            By default all CPUs that the process may use.

        Returns
        -------
        ndarray
            Values of shape `shape`; `out` if it was given.

        Raises
        ------
        InputError
            `out` does not fit, or a value is too large for float16.

        Examples
        --------
        >>> import numpy as np
        >>> import quantrs as qr
        >>> q = qr.quantize(np.full((2, 32), 3, np.float32), "q8_0")
        >>> out = np.empty((2, 32), np.float16)
        >>> q.dequantize(out=out) is out, out[0, 0]
        (True, np.float16(3.0))
        """
        wanted = _float_dtype(dtype) if dtype is not None else out.dtype if out is not None else np.dtype(np.float32)
        if out is None:
            target = np.empty(self.shape, wanted if wanted != np.float64 else np.float32)
        else:
            _check_out(out, self.shape, wanted)
            target = out if wanted != np.float64 else np.empty(self.shape, np.float32)
        if target.size:
            packed = np.ascontiguousarray(self._data)
            float_type = _FLOAT_TYPES[target.dtype.name]
            _native.convert_rows(
                _as_bytes(packed),
                self._type.name.upper(),
                _as_bytes(target),
                float_type,
                self._n_cols,
                threads=thread_counts.checked(threads),
            )
        if wanted != np.float64:
            return target
        if out is None:
            return target.astype(np.float64)
        out[...] = target
        return out

    def error(self, reference: "npt.ArrayLike", *, threads: int | None = None) -> ArrayError:
        """Compare with the values that this array stands for.

        Parameters
        ----------
        reference : array_like
            Floating point values of the same shape.
        threads : int, optional
            By default all CPUs that the process may use. The result does not depend on it.

        Examples
        --------
        >>> import numpy as np
        >>> import quantrs as qr
        >>> w = np.linspace(-1, 1, 4096, dtype=np.float32).reshape(8, 512)
        >>> error = qr.quantize(w, "q6_k").error(w)
        >>> error.relative < 0.02, error.sqnr_db > 34
        (True, True)
        """
        values = _float_array(reference, "reference")
        if values.shape != self.shape:
            raise InputError(f"error: found a reference of shape {values.shape}, expected {self.shape}, the shape of this array")
        if not values.size:
            return ArrayError.from_sums(0.0, 0.0, 0.0, 0)
        packed = np.ascontiguousarray(self._data)
        squared_error, squared, largest = _native.row_errors(
            _as_bytes(packed),
            self._type.name.upper(),
            _as_bytes(values),
            _FLOAT_TYPES[values.dtype.name],
            self._n_cols,
            threads=thread_counts.checked(threads),
        )
        return ArrayError.from_sums(squared_error, squared, largest, values.size)

    def __matmul__(self, x: "npt.ArrayLike") -> "npt.NDArray[np.float32]":
        return self.matmul(x)

    def matmul(self, x: "npt.ArrayLike", *, exact: bool = False, threads: int | None = None) -> "npt.NDArray[np.float32]":
        """Multiply without unpacking: ``q @ x``.

        Parameters
        ----------
        x : array_like
            ``[n_cols]`` or ``[n_cols, n]`` of float32, float16, bfloat16 or float64. Fastest when ``x.T`` is C-contiguous, as it
            is for ``q @ activations.T``.
        exact : bool
            Leave x as it is in float32. Otherwise x is rounded to 8 bits with a scale per 32 values, per 256 for types
            whose blocks have 256, as ggml does, which is several times faster; the error is below half a 127th of the largest of
            them. Types of floats are always exact.
        threads : int, optional
            By default all CPUs that the process may use. The result does not depend on it.

        Returns
        -------
        ndarray
            float32, of shape ``shape[:-1]`` or ``(*shape[:-1], n)``.

        Raises
        ------
        InputError
            The shapes do not fit.

        Examples
        --------
        >>> import numpy as np
        >>> import quantrs as qr
        >>> q = qr.quantize(np.eye(32, dtype=np.float32), "q8_0")
        >>> x = np.linspace(-1, 1, 64, dtype=np.float32).reshape(32, 2)
        >>> (q @ x).shape, (q @ x[:, 0]).shape
        ((32, 2), (32,))
        >>> bool(np.allclose(q @ x, x, atol=0.01))
        True
        >>> bool(np.allclose(q.matmul(x, exact=True), q.dequantize() @ x, atol=1e-6))
        True
        """
        values = np.asarray(x)
        if values.ndim not in (1, 2) or values.shape[0] != self._n_cols:
            raise InputError(f"matmul: found x of shape {values.shape}, expected ({self._n_cols},) or ({self._n_cols}, n)")
        columns = _float_array(values.T if values.ndim == 2 else values[np.newaxis], "matmul")
        with np.errstate(over="ignore"):
            columns = contiguous_float32(columns)
        leading = self._data.shape[:-1]
        result = np.zeros((len(columns), math.prod(leading)), np.float32)
        if result.size and self._n_cols:
            _native.matmul(
                np.ascontiguousarray(self._data).reshape(-1),
                self._type.name.upper(),
                columns,
                result,
                exact=exact,
                threads=thread_counts.checked(threads),
            )
        if values.ndim == 1:
            return result.reshape(leading)
        return np.moveaxis(result.reshape(len(columns), *leading), 0, -1)

    def __getitem__(self, key: "_Index | tuple[_Index, ...]") -> "QuantizedArray":
        keys = key if isinstance(key, tuple) else (key,)
        if len(keys) > self.ndim - 1:
            raise IndexError(
                f"found {len(keys)} indices, expected at most {self.ndim - 1} for the shape {self.shape}: the last axis is "
                "packed in blocks and stays whole; index the result of dequantize() for single values"
            )
        for part in keys:
            if part is None or part is Ellipsis or getattr(part, "ndim", 1) > 1:
                raise IndexError(f"found the index {part!r}, expected integers, slices and one-dimensional arrays")
        return QuantizedArray(self._data[keys], self._type.name, self._n_cols)

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator["QuantizedArray"]:
        if self.ndim == 1:
            raise TypeError("a single packed row cannot be iterated over; use dequantize() for its values")
        return (self[i] for i in range(len(self)))

    def __array__(self, dtype: "npt.DTypeLike | None" = None, copy: bool | None = None) -> "npt.NDArray[np.floating]":
        if copy is False:
            raise ValueError("a QuantizedArray cannot be seen as an array without a copy: its values have to be unpacked")
        if dtype is None or np.dtype(dtype).name in _FLOAT_TYPES:
            return self.dequantize(dtype)
        return self.dequantize().astype(dtype)

    def __repr__(self) -> str:
        return f"QuantizedArray(type={self.type!r}, shape={self.shape}, nbytes={self.nbytes}, bits_per_weight={self.bits_per_weight:g})"

    def __reduce__(self) -> tuple[object, ...]:
        return QuantizedArray, (self._data, self._type.name, self._n_cols)

    def __copy__(self) -> "QuantizedArray":
        return QuantizedArray(self._data, self._type.name, self._n_cols)

    def __deepcopy__(self, memo: dict[int, object]) -> "QuantizedArray":
        return QuantizedArray(self._data.copy(), self._type.name, self._n_cols)


def quantize(
    array: "npt.ArrayLike",
    type: str,
    *,
    importance: "npt.ArrayLike | None" = None,
    threads: int | None = None,
) -> QuantizedArray:
    """Quantize along the last axis, to the bytes that ggml writes.

    Parameters
    ----------
    array : array_like
        ``[..., n_cols]`` of float32, float16, bfloat16 (of ``ml_dtypes``) or float64, which is rounded to float32 first.
        Any strides; `n_cols` must be a multiple of the type's block size.
    type : str
        A name of `quantrs.types`, in any letter case: ``"q4_k"``, ``"IQ4_XS"``, ``"mxfp4"``.
    importance : array_like, optional
        Weight of each column in the search for scales: ``[n_cols]`` for all rows, or ``[k, ..., n_cols]`` with `array`'s
        first axes for a set per slice (experts). Not negative. Types that make no use of it ignore it.
    threads : int, optional
        By default all CPUs that the process may use. The bytes do not depend on it.

    Returns
    -------
    QuantizedArray
        Of the same shape.

    Raises
    ------
    TypeError
        The values are not floating point numbers.
    InputError
        A ValueError: row length, a value that is infinite, NaN or too large for the type (the message names row and
        column), or an unknown type.

    Warns
    -----
    QuantrsWarning
        Blocks of NVFP4 were clipped, as ggml clips them: above 448 x 6.

    Examples
    --------
    >>> import numpy as np
    >>> import quantrs as qr
    >>> w = np.random.default_rng(0).standard_normal((4, 512), np.float32)
    >>> q = qr.quantize(w, "q4_k", importance=np.ones(512))
    >>> q.nbytes, q.bits_per_weight
    (1152, 4.5)
    """
    block_type = block_types.find(type)
    values = _float_array(array, "quantize")
    if values.ndim == 0:
        raise InputError("quantize: found a single number, expected an array of one or more axes, the last one to be packed")
    n_cols = values.shape[-1]
    packed = np.empty((*values.shape[:-1], block_type.row_bytes(n_cols)), np.uint8)
    weights = None if importance is None else _importance(importance, values.shape)
    if values.size:
        clipped = _native.convert_rows(
            _as_bytes(values),
            _FLOAT_TYPES[values.dtype.name],
            _as_bytes(packed),
            block_type.name.upper(),
            n_cols,
            importance=weights,
            threads=thread_counts.checked(threads),
        )
        if clipped:
            warnings.warn(
                f"{clipped} {block_type.name} blocks hold values beyond the type's range and were clipped",
                QuantrsWarning,
                stacklevel=2,
            )
    return QuantizedArray(packed, block_type.name, n_cols)


def matmul_i8(a: "npt.NDArray[np.int8]", b: "npt.NDArray[np.int8]", *, threads: int | None = None) -> "npt.NDArray[np.int32]":
    """Multiply int8 matrices exactly: ``a @ b.T`` in int32, the product of W8A8 layers.

    Parameters
    ----------
    a : ndarray
        int8 ``[m, k]``, for instance activations.
    b : ndarray
        int8 ``[n, k]``, for instance weights. Any strides; C-contiguous saves a copy.
    threads : int, optional
        By default all CPUs that the process may use.

    Returns
    -------
    ndarray
        int32 ``[m, n]``. Exact for k up to 131071; beyond that, sums may wrap around.

    Raises
    ------
    TypeError
        An array is not of int8.
    InputError
        The shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import quantrs as qr
    >>> qr.matmul_i8(np.full((1, 3), -128, np.int8), np.full((2, 3), -128, np.int8))
    array([[49152, 49152]], dtype=int32)
    """
    for name, array in (("a", a), ("b", b)):
        if array.dtype != np.int8:
            raise TypeError(f"matmul_i8: found {name} of {array.dtype}, expected int8")
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise InputError(f"matmul_i8: found the shapes {a.shape} and {b.shape}, expected (m, k) and (n, k)")
    out = np.zeros((len(a), len(b)), np.int32)
    _native.matmul_i8(np.ascontiguousarray(a), np.ascontiguousarray(b), out, threads=thread_counts.checked(threads))
    return out


def _float_dtype(dtype: "npt.DTypeLike") -> "np.dtype[np.floating]":
    if isinstance(dtype, str) and dtype == "bfloat16":
        import ml_dtypes

        dtype = ml_dtypes.bfloat16
    found = np.dtype(dtype)
    if found.name not in _FLOAT_TYPES and found != np.float64:
        raise TypeError(f"found the dtype {found}, expected float32, float16, bfloat16 or float64")
    return found.newbyteorder("=")  # type: ignore[return-value]


def _float_array(values: "npt.ArrayLike", where: str) -> "npt.NDArray[np.floating]":
    """C-contiguous float32, float16 or bfloat16 in native byte order; a copy only where one is needed."""
    array = np.asarray(values)
    name = array.dtype.name
    if name not in (*_FLOAT_TYPES, "float64"):
        raise TypeError(
            f"{where}: found an array of {array.dtype}, expected float32, float16, bfloat16 or float64; "
            "convert it with .astype(numpy.float32)"
        )
    if array.ndim == 0:
        return array
    if name != "float64":
        return np.require(array, array.dtype.newbyteorder("="), ["C", "A"])
    with np.errstate(over="ignore"):  # a value beyond float32 becomes infinite, and is then refused with its column
        return contiguous_float32(array)


def _as_bytes(array: "npt.NDArray[np.generic]") -> "npt.NDArray[np.uint8]":
    return array.reshape(-1).view(np.uint8)


def _check_out(out: "npt.NDArray[np.floating]", shape: tuple[int, ...], wanted: "np.dtype[np.floating]") -> None:
    if out.dtype.name not in (*_FLOAT_TYPES, "float64"):
        raise TypeError(f"out: found an array of {out.dtype}, expected float32, float16, bfloat16 or float64")
    if out.shape != shape or out.dtype != wanted:
        raise InputError(f"out: found {out.dtype} of shape {out.shape}, expected {wanted} of shape {shape}")
    if not (out.flags.c_contiguous and out.flags.writeable and out.dtype.isnative):
        raise InputError("out: expected a C-contiguous, writeable array in native byte order; leave it out to get a new one")


def _importance(importance: "npt.ArrayLike", shape: tuple[int, ...]) -> "npt.NDArray[np.float32]":
    weights = np.asarray(importance)
    if weights.dtype.kind not in "fiu" and weights.dtype.name not in _FLOAT_TYPES:
        raise TypeError(f"importance: found an array of {weights.dtype}, expected real numbers")
    leading = weights.ndim - 1
    if not 0 <= leading < len(shape) or weights.shape != (*shape[:leading], shape[-1]):
        allowed = " or ".join(str((*shape[:k], shape[-1])) for k in range(len(shape)))
        raise InputError(f"importance: found the shape {weights.shape}, expected {allowed} for an array of shape {shape}")
    with np.errstate(over="ignore"):
        weights = contiguous_float32(weights)
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise InputError("importance: found a weight that is negative, NaN or infinite, expected finite numbers of 0 and more")
    return weights if leading == 0 else weights.reshape(-1, shape[-1])
