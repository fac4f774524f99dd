"""SmoothQuant: scales that move outliers of activations into the weights."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from quantrs import _native
from quantrs import threads as thread_counts

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["smooth_scales"]


def smooth_scales(
    x_max: "npt.ArrayLike", weights: "Sequence[npt.ArrayLike]", *, alpha: float = 0.5, threads: int | None = None
) -> "npt.NDArray[np.float32]":
    """Scales of the input channels that some linears share: ``s = x_max^alpha / w_max^(1 - alpha)``.

    Multiply the columns of all weights by s and divide the input by it (`quantrs.calibration.folding`): the outputs stay, and input and
    weights then have ranges that 8 bits hold well.

    Parameters
    ----------
    x_max : array_like
        float32 ``[in_features]``: the largest magnitude of each channel over calibration data.
    weights : sequence of array_like
        float32 ``[out_features, in_features]`` each: all that read the input, such as q, k and v.
    alpha : float
        0 leaves activations as they are, 1 moves everything into the weights. 0.5 is the paper's; 0.7 to 0.9 help models with strong
        outliers.
    threads : int, optional
        By default all CPUs that the process may use. The result does not depend on it.

    Returns
    -------
    ndarray
        float32 ``[in_features]``. At least 1e-5, computed with column maxima of at least 1e-5, and 1 where ``x_max^alpha`` is 0: as in
        Intel Neural Compressor.

    Raises
    ------
    InputError
        Shapes that do not fit, alpha outside 0 to 1, values that are NaN or infinite, or negative in `x_max`.

    References
    ----------
    Xiao et al. 2022, "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models", arXiv 2211.10438.

    Examples
    --------
    >>> import numpy as np
    >>> import quantrs as qr
    >>> qr.smooth_scales([16.0, 1.0], [np.ones((3, 2), np.float32)])
    array([4., 1.], dtype=float32)
    """
    import numpy as np

    arrays = [np.ascontiguousarray(w, np.float32) for w in weights]
    largest = np.ascontiguousarray(x_max, np.float32)
    return _native.smooth_scales(largest, arrays, alpha=alpha, threads=thread_counts.checked(threads))
