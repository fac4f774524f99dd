"""SmoothQuant: scales that move outliers of activations into the weights, so that both can be of 8 bits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quantrs import _native
from quantrs import threads as thread_counts
from quantrs.arrays import matmul_i8, quantize
from quantrs.calibration.channel_statistics import ChannelStatistics
from quantrs.contiguous import contiguous_float32
from quantrs.errors import InputError

__all__ = ["SmoothScales", "smooth_scales", "smooth_search"]

_Array = npt.NDArray[np.float32]

ALPHAS = tuple(i / 10 for i in range(11))
"""What `smooth_search` tries when not told otherwise."""


@dataclass(frozen=True)
class SmoothScales:
    """What `smooth_search` found."""

    alpha: float
    """That won."""
    scales: _Array
    """float32 ``[in_features]``: multiply the columns of all weights with it, divide the input by it."""
    losses: npt.NDArray[np.float64]
    """float64 ``[n_alphas]``: mean square error of the outputs for every alpha."""


def smooth_scales(x_max: npt.ArrayLike, weights: Sequence[npt.ArrayLike], *, alpha: float = 0.5, threads: int | None = None) -> _Array:
    """Scales of the input channels that some linears share: ``s = x_max^alpha / w_max^(1 - alpha)``.

    Multiply the columns of all weights by s and divide the input by it (`quantrs.calibration.folding`): the outputs stay, and input and
    weights then have ranges that 8 bits hold well.

    Parameters
    ----------
    x_max : array_like
        float32 ``[in_features]``: the largest magnitude of each channel over calibration data (`ChannelStatistics.max`).
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
    arrays = [contiguous_float32(w) for w in weights]
    largest = contiguous_float32(x_max)
    return _native.smooth_scales(largest, arrays, alpha=alpha, threads=thread_counts.checked(threads))


def smooth_search(
    x: npt.ArrayLike,
    weights: Sequence[npt.ArrayLike],
    *,
    x_max: npt.ArrayLike | None = None,
    alphas: Sequence[float] = ALPHAS,
    threads: int | None = None,
) -> SmoothScales:
    """Search for the alpha of `smooth_scales` under which 8-bit products err least.

    Outputs are computed as they will be: weights of int8 with a scale per row, inputs of int8 with a scale per token, both symmetric.

    Parameters
    ----------
    x : array_like
        Some inputs: float32 ``[tokens, in_features]``; a few hundred tokens do.
    weights : sequence of array_like
        float32 ``[out_features, in_features]`` each: all that read the input.
    x_max : array_like, optional
        float32 ``[in_features]``: the largest magnitude of each channel over all calibration data; by default that of `x`.
    alphas : sequence of float
        What to try; the first one wins on a tie.
    threads : int, optional
        By default all CPUs that the process may use. The result does not depend on it.

    Returns
    -------
    SmoothScales

    Raises
    ------
    InputError
        As in `smooth_scales`, and when there is nothing to try.

    Examples
    --------
    >>> import numpy as np
    >>> import quantrs as qr
    >>> rng = np.random.default_rng(0)
    >>> x, w = rng.standard_normal((64, 96), np.float32), rng.standard_normal((32, 96), np.float32)
    >>> x[:, 3] *= 100
    >>> found = qr.smooth_search(x, [w])
    >>> found.alpha > 0, bool(found.losses.min() < 0.1 * found.losses[0])
    (True, True)
    """
    if not alphas:
        raise InputError("alphas: found none, expected at least one")
    inputs = contiguous_float32(x)
    if inputs.ndim != 2 or not len(inputs):
        raise InputError(f"x: found the shape {inputs.shape}, expected (tokens, in_features) with at least one token")
    seen = ChannelStatistics(inputs.shape[1])
    seen.add(inputs)
    largest = seen.max if x_max is None else x_max
    candidates = [smooth_scales(largest, weights, alpha=alpha, threads=threads) for alpha in alphas]
    stacked = np.concatenate([contiguous_float32(w) for w in weights])
    wanted = quantize(stacked, "f32").matmul(inputs.T, exact=True, threads=threads).T
    losses = []
    for s in candidates:
        (w_codes, w_scales), (x_codes, x_scales) = _rows_to_int8(stacked * s), _rows_to_int8(inputs / s)
        found = matmul_i8(x_codes, w_codes, threads=threads) * x_scales[:, np.newaxis] * w_scales
        losses.append(float(np.square(found - wanted).mean(dtype=np.float64)))
    best = int(np.argmin(losses))
    return SmoothScales(alphas[best], candidates[best], np.array(losses))


def _rows_to_int8(rows: _Array) -> tuple[npt.NDArray[np.int8], _Array]:
    """Symmetric codes of -127 to 127 and a scale per row."""
    scales = np.abs(rows).max(axis=1) / np.float32(127)
    scales[scales == 0] = 1
    return np.rint(rows / scales[:, np.newaxis]).astype(np.int8), scales
