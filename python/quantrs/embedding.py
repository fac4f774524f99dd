"""From the hidden states of a text's tokens to one vector."""

from typing import TYPE_CHECKING

import numpy as np

from quantrs.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["pool"]


def pool(hidden: "npt.NDArray[np.float32]", pooling: str, *, normalize: bool) -> "npt.NDArray[np.float32]":
    """Join the rows of `hidden`.

    Parameters
    ----------
    hidden
        float32 ``[n, n_embd]``.
    pooling
        ``mean`` of the rows, the ``last`` one, or the first one (``cls``).
    normalize
        Scale to length 1; a zero vector stays one.

    Returns
    -------
    ndarray
        float32 ``[n_embd]``.

    Raises
    ------
    InputError
        `pooling` is another word.
    """
    if pooling == "mean":
        vector = hidden.mean(axis=0, dtype=np.float64)
    elif pooling in ("last", "cls"):
        vector = hidden[-1 if pooling == "last" else 0].astype(np.float64)
    else:
        raise InputError(f"pooling: found {pooling!r}, expected mean, last or cls")
    length = float(np.linalg.norm(vector))
    result: npt.NDArray[np.float32] = (vector / length if normalize and length > 0 else vector).astype(np.float32)
    return result
