"""GPTQ: round column after column, and let the columns that are left make up for the error."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantrs import _native
from quantrs import threads as thread_counts
from quantrs.errors import InputError
from quantrs.group_quantized import GroupQuantized, Rule, ScaleType, float32_matrix
from quantrs.hessian import Hessian

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["GptqQuantized", "gptq"]


@dataclass(frozen=True, eq=False)
class GptqQuantized(GroupQuantized):
    """What `gptq` found.

    Attributes
    ----------
    damp_percent : float
        Damping that was used: more than asked for where the Hessian was not positive definite.
    loss : float
        The error that was minimised, ``trace((w - q) @ H @ (w - q).T)`` with the damping counted in.
    """

    damp_percent: float
    loss: float


def gptq(
    w: "npt.ArrayLike",
    hessian: Hessian,
    *,
    bits: int = 4,
    group_size: int = 128,
    symmetric: bool = True,
    desc_act: bool = False,
    static_groups: bool = False,
    group_aware: bool = False,
    damp_percent: float = 0.01,
    block_size: int = 128,
    rule: Rule = "gptq",
    scale_type: ScaleType = "f32",
    mse: float | None = None,
    min_zero: int = 0,
    threads: int | None = None,
) -> GptqQuantized:
    """Quantize a weight so that the layer's outputs on the calibration inputs change little.

    Parameters
    ----------
    w : array_like
        ``[out_features, in_features]`` of float32, float16, bfloat16 or float64, which is rounded to float32.
    hessian : Hessian
        Of the layer's inputs, with ``hessian.n == in_features``.
    bits, group_size, symmetric, rule, scale_type, mse, min_zero, threads
        As of `quantize_groups`. Quotients are not rounded to `scale_type`.
    desc_act : bool
        Solve the columns with the loudest inputs first. Groups are then runs in that order, and `g_idx` is not sorted.
    static_groups : bool
        Groups are runs of w's own columns in any order, with scales from w before it is corrected.
    group_aware : bool
        Order the groups, and the columns in each, by the loudness of their inputs: most of what `desc_act` gains, with groups that
        are runs of columns. Not together with `desc_act`.
    damp_percent : float
        Added to the diagonal, in units of its mean. It grows by 0.01 until the matrix is positive definite.
    block_size : int
        Columns whose corrections reach the columns behind them together. Groups smaller than that take their scales from weights
        that lack the corrections of their own block, as the reference code has it.

    Returns
    -------
    GptqQuantized
        Codes in the column order of w.

    Raises
    ------
    TypeError
        w does not hold floating point numbers.
    InputError
        A shape or an argument, a value of w that is infinite or NaN (the message names row and column), or a Hessian that has
        seen no token or is not positive definite with any damping up to 1.

    Notes
    -----
    Columns whose inputs were always 0 become 0. The factor of the Hessian takes ``n**3 / 3`` multiply-adds and is kept in
    `hessian` until tokens are added or it is asked for in another order or damping; the solver itself takes
    ``out_features * in_features**2 / 2``. Results do not depend on `threads`; CPUs with and without fused multiply-add differ
    in a few codes by one step.

    References
    ----------
    Frantar, Ashkboos, Hoefler, Alistarh: GPTQ, accurate post-training quantization for generative pre-trained transformers,
    arXiv 2210.17323.

    Examples
    --------
    >>> import numpy as np
    >>> import quantrs as qr
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((512, 128)).cumsum(axis=1).astype(np.float32)
    >>> w = rng.standard_normal((32, 128)).astype(np.float32)
    >>> h = qr.Hessian(128)
    >>> h.add(x)
    >>> def error(q):
    ...     return np.square(x @ (q.dequantize() - w).T).sum()
    >>> q = qr.gptq(w, h, bits=4, group_size=32)
    >>> bool(error(q) < 0.2 * error(qr.quantize_groups(w, bits=4, group_size=32)))
    True
    """
    if not isinstance(hessian, Hessian):
        raise TypeError(f"gptq: found a hessian of {type(hessian).__name__}, expected a quantrs.Hessian that has seen the layer's inputs")
    if desc_act and group_aware:
        raise InputError("gptq: found desc_act and group_aware, expected one of these orders")
    weights = float32_matrix(w, "gptq")
    in_features = weights.shape[1]
    if in_features != hessian.n:
        raise InputError(f"gptq: found w of shape {weights.shape}, expected {hessian.n} columns, as many as the Hessian has")
    if not hessian.n_tokens:
        raise InputError("gptq: the Hessian has seen no token; pass calibration inputs to hessian.add first")
    codes, scales, zeros, g_idx, damping, loss = _native.gptq(
        weights,
        hessian._sums,
        bits=bits,
        group_size=group_size,
        symmetric=symmetric,
        order="activation" if desc_act else "group-aware" if group_aware else "natural",
        static_groups=static_groups,
        damp_percent=damp_percent,
        block_size=block_size,
        rule=rule,
        scale_type=scale_type,
        mse=mse,
        min_zero=min_zero,
        threads=thread_counts.checked(threads),
    )
    size = in_features if group_size == -1 else group_size
    return GptqQuantized(codes, scales, zeros, g_idx, bits, size, symmetric, damping, loss)
