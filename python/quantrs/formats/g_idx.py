"""The group of every input channel, checked."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from quantrs.errors import FormatError
from quantrs.formats.layer import QuantizedLayer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from quantrs.huggingface.folder import HfTensor

__all__ = ["read_g_idx"]


def read_g_idx(layer: QuantizedLayer, read: "Callable[[HfTensor], NDArray[np.generic]]") -> "NDArray[np.int32]":
    """The group of every input channel, ``[in]``, checked.

    Raises
    ------
    FormatError
        A value is no group.
    """
    if layer.g_idx is None:
        return np.arange(layer.in_features, dtype=np.int32) // np.int32(layer.group_size)
    g_idx = read(layer.g_idx).astype(np.int32)
    beyond = np.flatnonzero((g_idx < 0) | (g_idx >= layer.n_groups))
    if beyond.size:
        raise FormatError(f"{layer.g_idx.name}: value {g_idx[beyond[0]]} at {beyond[0]}, expected a group of 0 to {layer.n_groups - 1}")
    return g_idx
