"""Weights in float8 with a scale per row or per block: no grid, so nothing is solved; every weight goes to the nearest value.

The rule is that of compressed-tensors' min-max observer, in the model's own type step by step: scale = round(max|w| / 448), code =
nearest float8 of round(w / scale), ties to even. A scale of 0 becomes the type's epsilon.
"""

from functools import cache
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np

from quantrs.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["E4M3_MAX", "quantize_fp8"]

E4M3_MAX = 448.0
_ROWS_AT_ONCE = 256
_EPSILON = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


def quantize_fp8(
    w: "NDArray[np.generic]", *, block: tuple[int, int] | None = None, name: str = "weight"
) -> "tuple[NDArray[np.generic], NDArray[np.generic]]":
    """Round weights to float8 E4M3.

    Parameters
    ----------
    w : ndarray
        ``[out, in]`` of float32, float16 or bfloat16 (``ml_dtypes``); scales have the same type.
    block : (int, int), optional
        Rows and columns that share a scale, usually (128, 128); by default every row has its own.
    name : str
        Begins the message of an error.

    Returns
    -------
    codes : ndarray
        ``ml_dtypes.float8_e4m3fn`` ``[out, in]``.
    scales : ndarray
        Of the type of w, ``[out, 1]`` or ``[ceil(out / rows), ceil(in / columns)]``; ``w ~ codes * scales``.

    Raises
    ------
    InputError
        A value is infinite or NaN (row and column named), or w is no matrix of one of these types.

    Examples
    --------
    >>> import numpy as np
    >>> codes, scales = quantize_fp8(np.array([[224.0, -112.0, 0.0]], np.float32))
    >>> codes.astype(np.float32) * scales
    array([[ 224., -112.,    0.]], dtype=float32)
    """
    if w.ndim != 2 or w.dtype.name not in ("float32", "float16", "bfloat16"):
        raise InputError(f"{name}: found {w.dtype} of shape {w.shape}, expected float32, float16 or bfloat16 of shape [out, in]")
    n_out, n_in = w.shape
    rows, cols = block or (1, max(n_in, 1))
    codes = np.empty(w.shape, ml_dtypes.float8_e4m3fn)
    scales = np.empty((-(-n_out // rows), -(-n_in // cols)), w.dtype)
    step = rows * -(-_ROWS_AT_ONCE // rows)
    for start in range(0, n_out, step):
        part = w[start : start + step].astype(np.float32)
        if not np.isfinite(part).all():
            row, col = np.argwhere(~np.isfinite(part))[0]
            raise InputError(f"{name}: row {start + row}, column {col} is {part[row, col]}; expected finite weights")
        largest = np.maximum.reduceat(np.abs(part), np.arange(0, n_in, cols), axis=1)
        largest = np.maximum.reduceat(largest, np.arange(0, len(part), rows), axis=0)
        scale = (largest / np.float32(E4M3_MAX)).astype(w.dtype)
        scale[scale == 0] = _EPSILON[w.dtype.name]
        scales[start // rows : start // rows + len(scale)] = scale
        part /= scale.astype(np.float32).repeat(rows, 0)[: len(part)].repeat(cols, 1)[:, :n_in]
        codes[start : start + step] = _to_e4m3(part.astype(w.dtype))
    return codes, scales


def _to_e4m3(values: "NDArray[np.generic]") -> "NDArray[np.generic]":
    """Nearest float8 of each value, at most 448 either way."""
    codes: NDArray[np.generic]
    if values.dtype.itemsize == 2:
        codes = _e4m3_of_every(values.dtype)[values.view(np.uint16)]
    else:
        codes = np.clip(values, -E4M3_MAX, E4M3_MAX).astype(ml_dtypes.float8_e4m3fn)
    return codes


@cache
def _e4m3_of_every(dtype: "np.dtype[np.generic]") -> "NDArray[np.generic]":
    """The float8 of all 65536 values of a 16-bit type, by their bits."""
    with np.errstate(invalid="ignore"):
        every = np.arange(1 << 16, dtype=np.uint16).view(dtype).astype(np.float32)
        table: NDArray[np.generic] = np.clip(every, -E4M3_MAX, E4M3_MAX).astype(ml_dtypes.float8_e4m3fn)
    return table
