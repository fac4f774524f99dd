"""AWQ: scales of input channels, and thresholds to clip weights to, that make quantized linears err least."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from quantrs import _native
from quantrs import threads as thread_counts
from quantrs.calibration.channel_statistics import ChannelStatistics
from quantrs.contiguous import contiguous_float32
from quantrs.errors import InputError
from quantrs.hessian import Hessian

__all__ = ["AwqScales", "awq_clip", "awq_search", "clamp_groups"]

_Array = npt.NDArray[np.float32]


class _Gram(Protocol):
    """A `quantrs.Hessian`, or what looks like one."""

    @property
    def matrix(self) -> npt.NDArray[np.floating]:
        """``2/T X^T X``, ``[in_features, in_features]``."""


@dataclass(frozen=True)
class AwqScales:
    """What `awq_search` found."""

    best_index: int
    """Of the ratio that won: ``best_index / n_grid``."""
    scales: _Array
    """float32 ``[in_features]``: multiply the columns of all weights with it, divide the input by it."""
    losses: npt.NDArray[np.float64]
    """float64 ``[n_grid]``: mean square error of the outputs for every ratio."""

    @property
    def loss(self) -> float:
        """The smallest of the losses."""
        return float(self.losses[self.best_index])


def awq_search(
    weights: Sequence[npt.ArrayLike],
    x: "npt.ArrayLike | _Gram",
    *,
    bits: int = 4,
    group_size: int = 128,
    zero_point: bool = True,
    duo_scaling: bool = True,
    n_grid: int = 20,
    inspect: Literal["linear", "gated"] = "linear",
    activation: Literal["silu", "gelu_tanh", "relu"] = "silu",
    rule: str = "awq",
    scale_type: str = "f32",
    x_mean: npt.ArrayLike | None = None,
    scale_of: npt.ArrayLike | None = None,
    threads: int | None = None,
) -> AwqScales:
    """Search for the scales of the input channels that some linears share.

    For ratios r of 0, 1/n_grid, 2/n_grid ... the scales are ``x_mean^r / w_mean^(1-r)``, brought to a geometric middle of 1. Those win
    under which the outputs of the quantized linears differ least from what they should be. Nothing is changed: fold the scales into the
    weights and into what makes the input (`quantrs.calibration.folding`), then quantize.

    Parameters
    ----------
    weights : sequence of array_like
        float32 ``[out_features, in_features]`` each: all linears that read the input, such as q, k and v.
    x : array_like or Hessian
        The input: float32 ``[tokens, in_features]``. Where only the linears' own outputs matter, a `quantrs.Hessian` of any number of
        tokens will do, together with `x_mean`. Where an array has more than half as many tokens as channels, its Hessian is computed
        first, which is cheaper then.
    bits, group_size : int
        Of the quantized weights; a group size of -1 is one group per row.
    zero_point : bool
        Asymmetric groups, as AWQ checkpoints have them.
    duo_scaling : bool
        Whether `w_mean`, the mean over rows of ``|w| / max |w| of its group``, takes part in the scales.
    n_grid : int
        Ratios to try.
    inspect : {"linear", "gated"}
        ``"linear"`` compares the outputs of all linears; ``"gated"`` those of an MLP's inner half, ``activation(gate x) * up x``, of
        `weights` gate and up.
    activation : {"silu", "gelu_tanh", "relu"}
        That of a gated MLP.
    rule, scale_type : str
        The grid of the weights' format, as in `quantrs.quantize_groups`.
    x_mean : array_like, optional
        float32 ``[in_features]``: mean of |x| over the calibration data (`ChannelStatistics.mean`); by default that of `x`.
    scale_of : array_like, optional
        Integers ``[in_features]``: channels with the same number get the same scale.
    threads : int, optional
        By default all CPUs that the process may use. The result does not depend on it.

    Returns
    -------
    AwqScales

    Raises
    ------
    InputError
        Shapes that do not fit, a group size that does not divide, NaN or infinite values (row and column named), unknown names.

    References
    ----------
    Lin et al. 2023, "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration", arXiv 2306.00978. The formula of the
    scales is that of AutoAWQ 0.2.9.

    Examples
    --------
    >>> import numpy as np
    >>> import quantrs as qr
    >>> rng = np.random.default_rng(0)
    >>> w, x = rng.standard_normal((64, 128), np.float32), rng.standard_normal((256, 128), np.float32)
    >>> x[:, 5] *= 30
    >>> found = qr.awq_search([w], x, bits=3)
    >>> found.best_index > 0, int(found.scales.argmax())
    (True, 5)
    """
    if inspect not in ("linear", "gated"):
        raise InputError(f"inspect: found {inspect!r}, expected 'linear' or 'gated'")
    if n_grid < 1:
        raise InputError(f"n_grid: found {n_grid}, expected at least 1")
    values, is_gram = _inputs(x)
    if is_gram and inspect == "gated":
        raise InputError("inspect: gated outputs need the input itself; pass x as an array of tokens")
    if is_gram and x_mean is None:
        raise InputError("x_mean: expected the mean magnitudes of the input where x is a Hessian, which does not hold them")
    mean = _mean_magnitude(values) if x_mean is None else contiguous_float32(x_mean)
    if inspect == "linear" and not is_gram and 2 * len(values) > values.shape[1]:
        seen = Hessian(values.shape[1])
        seen.add(values, threads=threads)
        values, is_gram = seen.matrix, True
    best_index, scales, losses = _native.awq_search(
        [contiguous_float32(w) for w in weights],
        values,
        mean,
        outputs="gram" if is_gram else activation if inspect == "gated" else "linear",
        bits=bits,
        group_size=group_size,
        symmetric=not zero_point,
        duo_scaling=duo_scaling,
        n_grid=n_grid,
        rule=rule,
        scale_type=scale_type,
        scale_of=None if scale_of is None else np.require(scale_of, np.uint32, ["C", "A"]),
        threads=thread_counts.checked(threads),
    )
    return AwqScales(best_index, scales, losses)


def awq_clip(
    w: npt.ArrayLike,
    x: "npt.ArrayLike | _Gram",
    *,
    bits: int = 4,
    group_size: int = 128,
    zero_point: bool = True,
    n_grid: int = 20,
    max_shrink: float = 0.5,
    max_tokens: int = 512,
    scales: npt.ArrayLike | None = None,
    rule: str = "awq",
    scale_type: str = "f32",
    threads: int | None = None,
) -> _Array:
    """Search for the magnitudes that weights are best clipped to before they are quantized.

    For every row and group the thresholds ``(1 - i / n_grid) * max |w|``, i = 0 .. max_shrink * n_grid - 1, are tried. That one wins
    under which the group's share of the output errs least. AutoAWQ leaves out queries and keys, whose errors meet in a product.

    Parameters
    ----------
    w : array_like
        float32 ``[out_features, in_features]``, with the scales already folded in.
    x : array_like or Hessian
        The input: float32 ``[tokens, in_features]``, of which about `max_tokens` evenly spaced ones are used; or a `quantrs.Hessian` of
        it, of which all are.
    bits, group_size, zero_point, rule, scale_type
        As in `awq_search`.
    n_grid : int
        Steps that the whole range would take.
    max_shrink : float
        How far it is shrunk at most.
    max_tokens : int
        See `x`.
    scales : array_like, optional
        float32 ``[in_features]``: what `x` is still to be divided by.
    threads : int, optional
        By default all CPUs that the process may use. The result does not depend on it.

    Returns
    -------
    ndarray
        float32 ``[out_features, n_groups]``, for `clamp_groups`.

    Raises
    ------
    InputError
        As in `awq_search`.

    Examples
    --------
    >>> import numpy as np
    >>> import quantrs as qr
    >>> rng = np.random.default_rng(0)
    >>> w, x = rng.standard_normal((2, 256), np.float32), rng.standard_normal((64, 256), np.float32)
    >>> thresholds = qr.awq_clip(w, x, bits=3)
    >>> thresholds.shape, bool((thresholds <= np.abs(w).reshape(2, 2, 128).max(axis=2)).all())
    ((2, 2), True)
    """
    if n_grid < 1 or not 1 / n_grid <= max_shrink <= 1:
        raise InputError(f"max_shrink: found {max_shrink} in steps of 1/{n_grid}, expected at least one step and at most 1")
    values, is_gram = _inputs(x)
    if not is_gram:
        if max_tokens < 1:
            raise InputError(f"max_tokens: found {max_tokens}, expected at least 1")
        values = np.ascontiguousarray(values[:: max(1, len(values) // max_tokens)])
    if scales is not None:
        s = contiguous_float32(scales)
        values = values / np.outer(s, s) if is_gram else values / s
    return _native.awq_clip(
        contiguous_float32(w),
        values,
        is_gram=is_gram,
        bits=bits,
        group_size=group_size,
        symmetric=not zero_point,
        n_grid=n_grid,
        n_steps=int(max_shrink * n_grid + 1e-9),
        rule=rule,
        scale_type=scale_type,
        threads=thread_counts.checked(threads),
    )


def clamp_groups(w: npt.NDArray[np.float32], thresholds: npt.NDArray[np.float32]) -> _Array:
    """Clip weights, float32 ``[out_features, in_features]``, to the thresholds of their groups, ``[out_features, n_groups]``.

    Raises
    ------
    InputError
        The shapes do not fit.
    """
    n_rows, n_groups = thresholds.shape
    if len(w) != n_rows or w.shape[-1] % max(1, n_groups):
        raise InputError(f"thresholds: found the shape {thresholds.shape} for weights of {w.shape}")
    groups = w.reshape(n_rows, n_groups, -1)
    limits = thresholds[:, :, np.newaxis]
    return np.clip(groups, -limits, limits).reshape(w.shape)


def _inputs(x: "npt.ArrayLike | _Gram") -> tuple[_Array, bool]:
    """As float32 array, and whether it is the Gram matrix of a Hessian."""
    matrix = getattr(x, "matrix", None)
    values = np.require(x if matrix is None else matrix, np.float32, ["C", "A"])
    if values.ndim != 2:
        raise InputError(f"x: found the shape {values.shape}, expected (tokens, in_features)")
    return values, matrix is not None


def _mean_magnitude(x: _Array) -> _Array:
    statistics = ChannelStatistics(x.shape[1])
    statistics.add(x)
    return statistics.mean
