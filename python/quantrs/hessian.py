"""The Hessian of a layer's output error: what GPTQ knows about the inputs of a layer."""

from typing import TYPE_CHECKING

from quantrs import _native
from quantrs import threads as thread_counts
from quantrs.errors import InputError
from quantrs.group_quantized import float32_matrix

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Hessian"]


class Hessian:
    """``2 / T * X^T X`` of T inputs of a layer, summed up while they pass by.

    Layers with the same input (q, k and v; gate and up) share one, and then the factor of it that `gptq` computes is kept for the next
    of them. Memory: 4 bytes per entry of the matrix, and 2 for the factor.

    Parameters
    ----------
    n : int
        Inputs of the layer, `in_features`; 1 to 131072.

    Notes
    -----
    Products are summed in float32 over 256 tokens and from there on in float64, so that a diagonal entry is within 1.6e-5 of
    exact for any number of tokens, and closer in practice. The sums depend neither on the number of threads nor on how tokens
    are cut into calls of `add`. Only one triangle is computed.

    Examples
    --------
    >>> import numpy as np
    >>> import quantrs as qr
    >>> x = np.random.default_rng(0).standard_normal((1000, 64), np.float32)
    >>> h = qr.Hessian(64)
    >>> h.add(x[:300])
    >>> h.add(x[300:])
    >>> h.n_tokens, bool(np.allclose(h.matrix, 2 / 1000 * x.T @ x, atol=1e-4))
    (1000, True)
    """

    __slots__ = ("_sums",)

    def __init__(self, n: int) -> None:
        self._sums = _native.Hessian(n)

    @property
    def n(self) -> int:
        """Inputs of the layer."""
        return self._sums.n

    @property
    def n_tokens(self) -> int:
        """Tokens that were added."""
        return self._sums.n_tokens

    @property
    def matrix(self) -> "npt.NDArray[np.float32]":
        """float32 ``[n, n]``, symmetric; zeros before the first token. A new array every time."""
        return self._sums.matrix()

    def add(self, x: "npt.ArrayLike", *, threads: int | None = None) -> None:
        """Add tokens.

        Parameters
        ----------
        x : array_like
            ``[tokens, n]`` of float32, float16, bfloat16 or float64, which is rounded to float32.
        threads : int, optional
            By default all CPUs that the process may use. The sums do not depend on it.

        Raises
        ------
        TypeError
            x does not hold floating point numbers.
        InputError
            The shape does not fit, or a value is infinite or NaN; the message names row and column, and nothing was added.
        """
        self._sums.add(float32_matrix(x, "Hessian.add"), threads=thread_counts.checked(threads))

    def merge(self, other: "Hessian", *, threads: int | None = None) -> None:
        """Add what another one has seen, for calibration in several processes or threads.

        Raises
        ------
        InputError
            It is of another size.
        """
        if other.n != self.n:
            raise InputError(f"Hessian.merge: found n = {other.n}, expected {self.n}")
        self._sums.merge(other._sums, threads=thread_counts.checked(threads))

    def __repr__(self) -> str:
        return f"Hessian(n={self.n}, n_tokens={self.n_tokens})"
