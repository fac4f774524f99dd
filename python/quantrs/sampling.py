"""Choose the next token from its logits.

The order is llama.cpp's: penalties, top-k, typical, top-p, min-p, temperature, draw. Each step works on what the one before it left.
Draws come from a Philox generator: a seed gives the same text on every machine that computes the same logits.
"""

from collections import Counter, deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantrs.errors import InputError, UsageError

__all__ = ["Sampler", "SamplingOptions"]


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How to choose tokens; the defaults are llama.cpp's."""

    temperature: float = 0.8
    """0: always the most likely token, whatever the filters say."""
    top_k: int = 40
    """Keep that many; 0 keeps all."""
    top_p: float = 0.95
    """Keep the most likely ones whose probabilities sum up to this; 1 keeps all."""
    min_p: float = 0.05
    """Keep those at least this times as likely as the most likely one; 0 keeps all."""
    typical_p: float = 1.0
    """Keep those whose surprise is nearest to the expected one, up to this sum; 1 keeps all."""
    repeat_penalty: float = 1.0
    """Divides positive logits (and multiplies negative ones) of recent tokens; 1 changes nothing."""
    presence_penalty: float = 0.0
    """Subtracted from the logits of recent tokens."""
    frequency_penalty: float = 0.0
    """Subtracted for each time a token came recently."""
    penalty_last_n: int = 64
    """How many tokens are recent."""
    seed: int | None = None
    """None draws a new seed each time."""

    def __post_init__(self) -> None:
        finite = ("temperature", "repeat_penalty", "presence_penalty", "frequency_penalty")
        for name in finite:
            if not np.isfinite(getattr(self, name)):
                raise UsageError(f"{name}: found {getattr(self, name)}, expected a finite number")
        if self.temperature < 0:
            raise UsageError(f"temperature: found {self.temperature}, expected 0 or more")
        if self.repeat_penalty <= 0:
            raise UsageError(f"repeat_penalty: found {self.repeat_penalty}, expected more than 0")
        for name in ("top_p", "min_p", "typical_p"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name}: found {getattr(self, name)}, expected a number from 0 to 1")
        for name in ("top_k", "penalty_last_n"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name}: found {getattr(self, name)}, expected 0 or more")
        if self.seed is not None and not 0 <= self.seed < 2**64:
            raise UsageError(f"seed: found {self.seed}, expected a number from 0 to 2**64 - 1")


class Sampler:
    """Chooses tokens one after the other; knows the recent ones.

    Parameters
    ----------
    options
        How to choose.
    recent
        Tokens that came before, for the penalties.
    banned
        Tokens that are never chosen.
    """

    def __init__(self, options: SamplingOptions, *, recent: Iterable[int] = (), banned: Collection[int] = ()) -> None:
        self._options = options
        self._recent: deque[int] = deque(recent, maxlen=options.penalty_last_n)
        self._banned = sorted(banned)
        self._random: np.random.Generator | None = None

    def choose(self, logits: NDArray[np.float32]) -> int:
        """The next token, remembered as recent.

        Parameters
        ----------
        logits
            ``[n_vocab]``, finite.
        """
        if not -np.inf < logits.min() <= logits.max() < np.inf:  # NaN fails every comparison
            raise InputError("logits: found infinite or NaN values, expected finite numbers; the model's weights are damaged")
        scores = logits
        if self._banned or self._penalizes:
            scores = logits.copy()
            self._penalize(scores)
            scores[self._banned] = -np.inf
        token = int(scores.argmax()) if self._options.temperature == 0 else self._draw(scores)
        self._recent.append(token)
        return token

    @property
    def _penalizes(self) -> bool:
        options = self._options
        changes = options.repeat_penalty != 1 or options.presence_penalty != 0 or options.frequency_penalty != 0
        return changes and bool(self._recent)

    def _penalize(self, logits: NDArray[np.float32]) -> None:
        if not self._penalizes:
            return
        options = self._options
        counts = Counter(self._recent)
        ids = np.fromiter(counts.keys(), np.int64, len(counts))
        times = np.fromiter(counts.values(), np.float64, len(counts))
        found = logits[ids].astype(np.float64)
        found = np.where(found > 0, found / options.repeat_penalty, found * options.repeat_penalty)
        logits[ids] = found - times * options.frequency_penalty - options.presence_penalty

    def _draw(self, logits: NDArray[np.float32]) -> int:
        options = self._options
        ids, left_out = self._candidates(logits)
        # Of equal logits the lower id comes first, so that the order is the same everywhere.
        ids = ids[np.argsort(-logits[ids], kind="stable")][: options.top_k or None]
        kept: NDArray[np.float64] = logits[ids].astype(np.float64)
        ids, kept = ids[kept > -np.inf], kept[kept > -np.inf]
        typical = _typical(kept, options.typical_p)
        if typical is not None:
            ids, kept = ids[typical], kept[typical]
        n_top = _n_top_p(kept, options.top_p, left_out)
        ids, kept = ids[:n_top], kept[:n_top]
        if options.min_p > 0:
            likely = kept >= kept[0] + np.log(options.min_p)
            ids, kept = ids[likely], kept[likely]
        cumulated = np.cumsum(_probabilities(kept / options.temperature))
        if self._random is None:
            self._random = np.random.Generator(np.random.Philox(options.seed))
        place = np.searchsorted(cumulated, self._random.random() * cumulated[-1], side="right")
        return int(ids[min(int(place), ids.size - 1)])

    def _candidates(self, logits: NDArray[np.float32]) -> tuple[NDArray[np.int64], float]:
        """Ascending ids of few tokens, among them all that the first filter keeps: sorting a whole vocabulary takes many times longer.

        Also the weight, times that of the most likely token, of those left out that count for `top_p`.
        """
        options = self._options
        if 0 < options.top_k < logits.size:
            return np.flatnonzero(logits >= _bound_of_largest(logits, options.top_k)), 0.0
        if options.typical_p >= 1 and options.top_p < 1:
            return _likely(logits, options.top_p)
        if options.typical_p >= 1 and options.min_p > 0:
            # A little lower than the filter itself, which compares in double precision.
            return np.flatnonzero(logits >= logits.max() + np.log(options.min_p) - 1e-3), 0.0
        return np.arange(logits.size), 0.0


def _likely(logits: NDArray[np.float32], top_p: float) -> tuple[NDArray[np.int64], float]:
    """Ids of the most likely tokens, a few more than reach `top_p`, and the weight of all others."""
    weights = np.exp(logits - logits.max())
    total = float(weights.sum(dtype=np.float64))
    count = 256
    while count < logits.size // 4:
        ids = np.flatnonzero(logits >= _bound_of_largest(logits, count))
        left_out = total - float(weights[ids].sum(dtype=np.float64))
        if left_out < (1 - top_p) * total * 0.999:  # the sums are rounded
            return ids, left_out
        count *= 4
    return np.arange(logits.size), 0.0


def _bound_of_largest(logits: NDArray[np.float32], count: int) -> np.float32:
    """A value that the `count` largest reach, and few others.

    The `count`-th largest of the maxima of disjoint groups: that many groups hold a value which is at least that.
    """
    n_columns = logits.size // _GROUP
    if n_columns < 4 * count:
        return np.float32(np.partition(logits, logits.size - count)[logits.size - count])
    maxima = logits[: n_columns * _GROUP].reshape(_GROUP, n_columns).max(axis=0)
    return np.float32(np.partition(maxima, n_columns - count)[n_columns - count])


_GROUP = 64


def _probabilities(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    weights: NDArray[np.float64] = np.exp(logits - logits.max())
    weights /= weights.sum()
    return weights


def _n_top_p(logits: NDArray[np.float64], top_p: float, left_out: float) -> int:
    """How many of the descending `logits` it takes to reach `top_p`, at least one. Others weigh `left_out` times the first."""
    if top_p >= 1:
        return logits.size
    weights = np.exp(logits - logits[0])
    bound = top_p * (weights.sum() + left_out)
    return min(int(np.searchsorted(np.cumsum(weights), bound, side="left")) + 1, logits.size)


def _typical(logits: NDArray[np.float64], typical_p: float) -> NDArray[np.int64] | None:
    """Indices, ascending, of those whose surprise is nearest to the entropy; None to keep all."""
    if typical_p >= 1:
        return None
    chances = _probabilities(logits)
    surprise = -np.log(np.maximum(chances, 1e-300))
    order = np.argsort(np.abs(surprise - float(chances @ surprise)), kind="stable")
    n_kept = min(int(np.searchsorted(np.cumsum(chances[order]), typical_p, side="left")) + 1, logits.size)
    return np.sort(order[:n_kept])
