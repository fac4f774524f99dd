"""Tensors of a model as NumPy arrays."""

from typing import TYPE_CHECKING

import numpy as np

from quantrs import _native

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["read_float32"]


def read_float32(sources: "_native.Sources", tensor: "_native.TensorInfo") -> "NDArray[np.float32]":
    """All of a tensor of floats, float32 ``[..., out_features, in_features]``, in memory of its own.

    Raises
    ------
    InputError
        A value is infinite or NaN.
    FileError
        The file cannot be read.
    """
    raw = np.frombuffer(sources.read(tensor), np.uint8)
    shape = tuple(reversed(tensor.dims))
    if tensor.type_name == "F32":
        return raw.view("<f4").reshape(shape).copy()
    out = np.empty(shape, np.float32)
    _native.convert_rows(raw, tensor.type_name or "", out.reshape(-1).view(np.uint8), "F32", tensor.dims[0])
    return out
