"""Models on disk, opened lazily: the header at once, values and tensor data when they are asked for."""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from quantrs import _native, block_types
from quantrs.errors import InputError
from quantrs.open_model import open_model

if TYPE_CHECKING:
    from os import PathLike
    from types import TracebackType

    import numpy as np
    import numpy.typing as npt

    from quantrs.arrays import QuantizedArray

__all__ = ["Checkpoint", "MetadataValue", "Tensor", "open"]

MetadataValue = bool | int | float | str | list[bool] | list[int] | list[float] | list[str]

_PLAIN_DTYPES = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8"}


class _Data:
    """The model's tensor data; files are opened at the first read."""

    def __init__(self, gguf: "_native.Gguf") -> None:
        self._sources: _native.Sources | None = _native.Sources(gguf)

    def read(self, tensor: "_native.TensorInfo") -> bytes:
        if self._sources is None:
            raise InputError(f"{tensor.name}: the checkpoint is closed; read tensors inside the with block")
        return self._sources.read(tensor)

    def close(self) -> None:
        self._sources = None


class Tensor:
    """One tensor of a `Checkpoint`; nothing is read before `data`, `quantized` or `dequantize` is used."""

    __slots__ = ("_data", "_info")

    def __init__(self, info: "_native.TensorInfo", data: _Data) -> None:
        self._info = info
        self._data = data

    @property
    def name(self) -> str:
        """``blk.0.attn_q.weight``."""
        return self._info.name

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows first, as NumPy counts: ``[..., out_features, in_features]``."""
        return tuple(reversed(self._info.dims))

    @property
    def type(self) -> str:
        """Type name in lower case: ``q4_k``, ``f32``; ``unknown (id 77)`` for an id that this version does not know."""
        return self._info.type_name.lower() if self._info.type_name else f"unknown (id {self._info.type_id})"

    @property
    def nbytes(self) -> int:
        """Bytes of data in the file, without padding."""
        return self._info.nbytes

    @property
    def data(self) -> "npt.NDArray[np.uint8]":
        """The bytes as stored, read anew at each use: uint8 ``[..., row_bytes]``, or flat for an unknown type."""
        import numpy as np

        flat = np.frombuffer(self._data.read(self._info), np.uint8) if self.nbytes else np.empty(0, np.uint8)
        rows = self.shape[:-1]
        return flat if self._info.type_name is None or not math.prod(rows) else flat.reshape(*rows, -1)

    def quantized(self) -> "QuantizedArray":
        """The tensor as a `QuantizedArray`, without unpacking.

        Raises
        ------
        InputError
            The type is unknown, or holds integers.
        """
        from quantrs.arrays import QuantizedArray

        if self._info.type_name is None or not block_types.find(self._info.type_name).can_dequantize:
            raise InputError(f"{self.name}: found the type {self.type}, expected one of quantrs.types(); its bytes are in .data")
        return QuantizedArray.from_bytes(self._data.read(self._info), self._info.type_name, self.shape)

    def dequantize(self, *, threads: int | None = None) -> "npt.NDArray[np.float32]":
        """Read the tensor as float32 ``shape``; integers and float64 are converted as NumPy converts them.

        Raises
        ------
        InputError
            The type is unknown, or the checkpoint is closed.
        """
        import numpy as np

        dtype = _PLAIN_DTYPES.get(self._info.type_name or "")
        if dtype is None:
            return self.quantized().dequantize(threads=threads).astype(np.float32, copy=False)
        return self.data.reshape(-1).view(dtype).reshape(self.shape).astype(np.float32)

    def __repr__(self) -> str:
        return f"Tensor(name={self.name!r}, type={self.type!r}, shape={self.shape})"


class _Metadata(Mapping[str, MetadataValue]):
    """Key/values in the file's order, decoded when read."""

    def __init__(self, gguf: "_native.Gguf") -> None:
        self._gguf = gguf

    def __getitem__(self, key: str) -> MetadataValue:
        value = self._gguf.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._gguf.value_type(key) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._gguf.keys())

    def __len__(self) -> int:
        return len(self._gguf.keys())


class _Tensors(Mapping[str, Tensor]):
    """Tensors by name in the file's order; the table is built at the first look-up."""

    def __init__(self, gguf: "_native.Gguf", data: _Data) -> None:
        self._gguf = gguf
        self._data = data
        self._by_name: dict[str, Tensor] | None = None

    def _table(self) -> dict[str, Tensor]:
        if self._by_name is None:
            self._by_name = {info.name: Tensor(info, self._data) for info in self._gguf.tensors}
        return self._by_name

    def __getitem__(self, name: str) -> Tensor:
        return self._table()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table())

    def __len__(self) -> int:
        return len(self._table())


class Checkpoint:
    """An open model; see `open`."""

    def __init__(self, gguf: "_native.Gguf") -> None:
        self._gguf = gguf
        self._data = _Data(gguf)
        self._tensors = _Tensors(gguf, self._data)

    @property
    def metadata(self) -> Mapping[str, MetadataValue]:
        """Key/values in the file's order, decoded at each look-up; bytes that are not UTF-8 come as surrogate escapes."""
        return _Metadata(self._gguf)

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Tensors by name, in the file's order; those of a split model come from all its files."""
        return self._tensors

    @property
    def files(self) -> list[str]:
        """Paths of the model's files; one unless it is split."""
        return list(self._gguf.files)

    @property
    def notices(self) -> list[str]:
        """What was accepted but is odd: unknown type ids, missing padding at the end."""
        return list(self._gguf.notices)

    def close(self) -> None:
        """Let go of the files; tensors can no longer be read. Closing twice does no harm."""
        self._data.close()

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None") -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Checkpoint({self._gguf.files[0]!r}, {len(self._gguf.tensors)} tensors)"


def open(path: "str | PathLike[str]") -> Checkpoint:
    """Open a GGUF model: its header is read and checked, no tensor data.

    Parameters
    ----------
    path : path-like
        A GGUF file of version 2 or 3; the first file of a split model opens them all.

    Returns
    -------
    Checkpoint
        A context manager with `metadata` and `tensors`.

    Raises
    ------
    FileError
        The file cannot be read.
    FormatError
        It is not a sound GGUF file; the message names offset and field.

    Examples
    --------
    >>> import quantrs as qr
    >>> with qr.open("model.gguf") as model:
    ...     model.metadata["general.architecture"]
    ...     model.tensors["output_norm.weight"].dequantize().shape
    'llama'
    (256,)
    """
    return Checkpoint(open_model(path, to_run=True))
