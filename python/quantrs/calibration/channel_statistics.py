"""How large the inputs of a linear are, channel by channel: what AWQ and SmoothQuant want to know of the calibration text."""

from typing import TYPE_CHECKING

from quantrs.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["ChannelStatistics"]

_TOKENS_AT_A_TIME = 2048


class ChannelStatistics:
    """Mean and largest magnitude of each of `n_channels` channels over all tokens seen.

    Sums are of float64, over parts of 2048 tokens from the start of each `add`, so that they hardly depend on how tokens come.

    Examples
    --------
    >>> import numpy as np
    >>> from quantrs.calibration.channel_statistics import ChannelStatistics
    >>> seen = ChannelStatistics(2)
    >>> seen.add(np.array([[1, -4], [-2, 2]], np.float32))
    >>> seen.mean.tolist(), seen.max.tolist(), seen.n_tokens
    ([1.5, 3.0], [2.0, 4.0], 2)
    """

    def __init__(self, n_channels: int) -> None:
        import numpy as np

        self.n_tokens = 0
        self._sum = np.zeros(n_channels, np.float64)
        self._max = np.zeros(n_channels, np.float32)

    def add(self, x: "npt.NDArray[np.float32]") -> None:
        """Take in tokens: float32 ``[tokens, n_channels]``.

        Raises
        ------
        InputError
            Another number of channels, or a value that is NaN or infinite (row and column named); nothing is taken in then.
        """
        import numpy as np

        if x.ndim != 2 or x.shape[1] != len(self._sum):
            raise InputError(f"x: found the shape {x.shape}, expected (tokens, {len(self._sum)})")
        total, largest = self._sum.copy(), self._max.copy()
        for first in range(0, len(x), _TOKENS_AT_A_TIME):
            magnitudes = np.abs(x[first : first + _TOKENS_AT_A_TIME])
            total += magnitudes.sum(axis=0, dtype=np.float64)
            np.maximum(largest, magnitudes.max(axis=0), out=largest)
        if not np.isfinite(total).all():
            row, column = np.argwhere(~np.isfinite(x))[0]
            raise InputError(f"x: found {x[row, column]} in row {row}, column {column}, expected finite numbers")
        self._sum, self._max = total, largest
        self.n_tokens += len(x)

    def merge(self, other: "ChannelStatistics") -> None:
        """Take in what another one has seen.

        Raises
        ------
        InputError
            It is of another number of channels.
        """
        import numpy as np

        if len(other._sum) != len(self._sum):
            raise InputError(f"statistics of {len(other._sum)} channels cannot be merged into those of {len(self._sum)}")
        self._sum = self._sum + other._sum
        self._max = np.maximum(self._max, other._max)
        self.n_tokens += other.n_tokens

    @property
    def mean(self) -> "npt.NDArray[np.float32]":
        """float32 ``[n_channels]``: mean of |x|; zeros before the first token."""
        import numpy as np

        return (self._sum / max(1, self.n_tokens)).astype(np.float32)

    @property
    def max(self) -> "npt.NDArray[np.float32]":
        """float32 ``[n_channels]``: largest |x|."""
        return self._max.copy()
