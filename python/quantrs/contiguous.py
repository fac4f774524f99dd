"""Arrays as the native module takes them."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["contiguous_float32"]


def contiguous_float32(values: "npt.ArrayLike") -> "npt.NDArray[np.float32]":
    """Float32 in native byte order, C-contiguous and aligned; a copy only where one is needed.

    `numpy.ascontiguousarray` would leave what is not aligned, such as a view of a mapped file.
    """
    return np.require(values, np.float32, ["C", "A"])
