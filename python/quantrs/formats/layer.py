"""One quantized linear layer of a checkpoint: which tensors hold it, and how they are to be read. No data is read."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from quantrs.errors import FormatError, InputError
from quantrs.huggingface.folder import Folder, HfTensor, read_bytes_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from quantrs.group_quantized import GroupQuantized
    from quantrs.huggingface.config import Config

__all__ = ["CheckpointFormat", "Kind", "LayerTensors", "QuantizedFolder", "QuantizedLayer", "group_size_of", "modules_with", "read_array"]

Kind = Literal["gptq", "awq", "packed", "int8", "fp8", "nvfp4", "mxfp4"]
"""How the codes lie:

- ``gptq``: int32 ``[in * bits / 32, out]``, a stream of bits down the input axis; zeros int32 ``[n_groups, out * bits / 32]`` along the
  outputs, minus `zero_offset`; scales ``[n_groups, out]``.
- ``awq``: int32 ``[in, out / 8]``, outputs 0 2 4 6 1 3 5 7 in the nibbles from the lowest on; zeros the same, ``[n_groups, out / 8]``;
  scales ``[n_groups, out]``.
- ``packed``: int32 ``[out, ceil(in * bits / 32)]``, a stream of bits per row; zeros int32 ``[ceil(out * bits / 32), n_groups]``, a stream
  down the outputs, or int8 ``[out, n_groups]`` (signed, as old versions wrote them); scales ``[out, n_groups]``.
- ``int8``, ``fp8``: int8 or float8_e4m3 ``[out, in]``; zeros int8 as the scales; scales
  ``[ceil(out / block_rows), ceil(in / group_size)]``, or one value.
- ``nvfp4``, ``mxfp4``: uint8 ``[out, in / 2]``, even column in the low nibble; scales float8_e4m3 (values divided by `global_scale`) or
  uint8 exponents plus 127, ``[out, in / group_size]``.
"""

_ARRAY_TYPES = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1"}


@dataclass(frozen=True, kw_only=True)
class QuantizedLayer:
    """A linear layer, checked: all types and shapes fit together. No values are known yet."""

    name: str
    """The module: ``model.layers.0.self_attn.q_proj``."""
    kind: Kind
    out_features: int
    in_features: int
    bits: int
    group_size: int
    """Input channels that share a scale; `in_features` when a row has one."""
    symmetric: bool
    """The zero point is that of a symmetric grid, whatever `zeros` may hold; said by the configuration."""
    codes: HfTensor
    scales: HfTensor
    zeros: HfTensor | None = None
    """None: the middle of the range, ``2^(bits-1)`` of unsigned codes, 0 of signed ones."""
    g_idx: HfTensor | None = None
    """int32 ``[in]``, the group of every input channel; None: channel // group_size. Values are to be checked when they are read."""
    global_scale: HfTensor | None = None
    """float32, one value; of ``nvfp4``."""
    zero_offset: int = 0
    """1 where stored zero points are one too small (GPTQ v1)."""
    zeros_wrap: bool = False
    """How the 1 was taken: from every zero point alone, modulo ``2^bits``, or (False) from whole words, where a 0 borrows from the next."""
    block_rows: int = 1
    """Outputs that share a scale; `out_features` when there is one for all."""
    others: tuple[str, ...] = ()
    """Names of tensors that belong to the layer and say no more, such as ``weight_shape``, or nothing of weights (``input_scale``)."""

    @property
    def n_groups(self) -> int:
        """Groups of input channels."""
        return -(-self.in_features // self.group_size)

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of all tensors that belong to the layer but its bias."""
        found = (self.codes, self.scales, self.zeros, self.g_idx, self.global_scale)
        return (*(tensor.name for tensor in found if tensor is not None), *self.others)


@dataclass(frozen=True)
class QuantizedFolder:
    """What is quantized in a folder."""

    method: str
    """``gptq``, ``awq`` or ``compressed-tensors``."""
    layers: Mapping[str, QuantizedLayer]
    """By module name. Every other tensor of the folder is as it would be in any checkpoint, but for `others`."""
    others: tuple[str, ...] = ()
    """Names of tensors that belong to no layer and say nothing of weights, such as scales of the key-value cache."""


@dataclass(frozen=True, kw_only=True)
class CheckpointFormat:
    """A way to store quantized layers in a checkpoint folder."""

    method: str
    """``quant_method`` in ``config.json``."""
    find_layers: "Callable[[Config, Folder], QuantizedFolder]"
    """From ``quantization_config`` and the tensors of the folder; raises FormatError or InputError."""
    unpack_layer: "Callable[[QuantizedLayer, Callable[[HfTensor], NDArray[np.generic]]], GroupQuantized | NDArray[np.float32]]"
    """A whole layer in memory: group-quantized integers, or the values ``[out, in]`` of floating-point codes."""


class LayerTensors:
    """The tensors of one module, each checked when it is taken."""

    def __init__(self, folder: Folder, name: str) -> None:
        self.folder, self.name = folder, name

    def take(self, suffix: str, dtypes: Sequence[str], shape: Sequence[int | None]) -> HfTensor:
        """The tensor ``name.suffix``, of one of these types and of this shape (None: any length).

        Raises
        ------
        FormatError
            It is missing, or is something else.
        """
        tensor = self.maybe(suffix)
        expected = f"{' or '.join(dtypes)} of shape [{', '.join('any' if n is None else str(n) for n in shape)}]"
        if tensor is None:
            raise FormatError(f"{self.folder.path}: {self.name}.{suffix} is missing, expected {expected} beside the layer's other tensors")
        fits = len(tensor.shape) == len(shape) and all(n in (None, found) for n, found in zip(shape, tensor.shape, strict=True))
        if tensor.dtype not in dtypes or not fits or 0 in tensor.shape:
            raise self.wrong(suffix, expected)
        return tensor

    def maybe(self, suffix: str) -> HfTensor | None:
        """The tensor, unchecked, or None."""
        return self.folder.tensors.get(f"{self.name}.{suffix}")

    def names(self, suffixes: Iterable[str]) -> tuple[str, ...]:
        """Names of those that are there."""
        return tuple(f"{self.name}.{suffix}" for suffix in suffixes if self.maybe(suffix) is not None)

    def wrong(self, suffix: str, expected: str) -> FormatError:
        """An error for a tensor that does not fit the others."""
        tensor = self.maybe(suffix)
        found = "nothing" if tensor is None else f"{tensor.dtype} of shape {list(tensor.shape)}"
        return FormatError(f"{self.folder.path}: {self.name}.{suffix}: found {found}, expected {expected}")


def modules_with(folder: Folder, suffixes: Sequence[str]) -> list[str]:
    """Modules that have a tensor with one of these last names, in the order of the folder."""
    found = (tensor.rpartition(".") for tensor in folder.tensors)
    return list(dict.fromkeys(module for module, _, last in found if last in suffixes and module))


def group_size_of(n_groups: int, in_features: int, asked: Iterable[int]) -> int | None:
    """The group size that gives so many groups: one of `asked` if it does (-1: all channels), else that of equal groups."""
    if n_groups == 1:
        return in_features
    fitting = (size for size in asked if size > 0 and -(-in_features // size) == n_groups)
    equal = in_features // n_groups if in_features % n_groups == 0 else None
    return next(fitting, equal)


def read_array(folder: Folder, tensor: HfTensor) -> "NDArray[np.generic]":
    """All values of a tensor, in the type in which they are stored (``ml_dtypes`` for bfloat16 and float8).

    Raises
    ------
    FileError
        The file cannot be read, or has become shorter.
    InputError
        NumPy has no such type.
    """
    import ml_dtypes

    more = {"BF16": ml_dtypes.bfloat16, "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2}
    dtype = more.get(tensor.dtype) or _ARRAY_TYPES.get(tensor.dtype)
    if dtype is None:
        raise InputError(f"{folder.path}: {tensor.name} is of {tensor.dtype}, expected one of {', '.join([*_ARRAY_TYPES, *more])}")
    raw = read_bytes_of(folder.sources[tensor.source], tensor.offset, tensor.nbytes)
    return np.frombuffer(raw, np.dtype(dtype)).reshape(tensor.shape)
