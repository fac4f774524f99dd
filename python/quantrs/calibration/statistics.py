"""What calibration keeps of a linear's inputs: never the inputs themselves."""

from collections.abc import Set
from typing import TYPE_CHECKING, Literal

from quantrs.calibration.channel_statistics import ChannelStatistics
from quantrs.hessian import Hessian

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["InputStatistics", "Need"]

Need = Literal["hessian", "mean", "largest"]


class InputStatistics:
    """Gathers statistics of the inputs of one linear.

    Parameters
    ----------
    in_features : int
        Values of an input.
    needs : set of str
        Which statistics.
    threads : int, optional
        For the Hessian; results do not depend on it.
    """

    def __init__(self, in_features: int, needs: Set[Need], *, threads: int | None = None) -> None:
        self.n_tokens = 0
        self.all_zero = True
        """No input had a value other than 0: nothing can be told from them."""
        self._needs = needs
        self._hessian = Hessian(in_features) if "hessian" in needs else None
        self._threads = threads
        self._channels = ChannelStatistics(in_features)

    def add(self, x: "NDArray[np.float32]") -> None:
        """Take in inputs, float32 ``[tokens, in_features]``."""
        if not len(x):
            return
        self.n_tokens += len(x)
        self.all_zero = self.all_zero and not x.any()
        if self._hessian is not None:
            self._hessian.add(x, threads=self._threads)
        if "mean" in self._needs or "largest" in self._needs:
            self._channels.add(x)

    @property
    def hessian(self) -> Hessian:
        """``2 / tokens * X^T X``.

        Raises
        ------
        ValueError
            It was not asked for.
        """
        if self._hessian is None:
            raise ValueError("the Hessian was not gathered")
        return self._hessian

    @property
    def mean(self) -> "NDArray[np.float32]":
        """Mean magnitude of each column, ``[in_features]``."""
        return self._channels.mean

    @property
    def largest(self) -> "NDArray[np.float32]":
        """Largest magnitude of each column, ``[in_features]``."""
        return self._channels.max
