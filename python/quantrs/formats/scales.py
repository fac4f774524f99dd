"""Scales in the type in which a checkpoint keeps them."""

from typing import TYPE_CHECKING

import numpy as np

from quantrs.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["checked_scales"]


def checked_scales(scales: "NDArray[np.float32]", dtype: "np.dtype[np.generic]", name: str) -> "NDArray[np.generic]":
    """Scales ``[out, n_groups]`` rounded to `dtype` (ties to even).

    Raises
    ------
    InputError
        One is too large for it; `name` begins the message.
    """
    with np.errstate(over="ignore"):
        rounded = scales.astype(dtype)
    finite = np.isfinite(rounded)
    if not finite.all():
        row, group = np.argwhere(~finite)[0]
        raise InputError(
            f"{name}: the scale of row {row}, group {group} is {scales[row, group]:g}, which {dtype.name} cannot hold; "
            "choose a format with scales in bfloat16 or float32 for this model"
        )
    return rounded
