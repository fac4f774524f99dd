"""Merge neighbouring symbols, best pair first: the loop that byte-level BPE and SentencePiece vocabularies share."""

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import pairwise

__all__ = ["merge_pairs"]


def merge_pairs(symbols: list[str], rank: Callable[[str, str], float | None]) -> list[str]:
    """Join pairs of neighbours until no pair has a rank; the lowest rank goes first, of equal ones the leftmost.

    Parameters
    ----------
    symbols
        What to start from, usually single characters.
    rank
        Rank of a left and a right symbol, or None when they may not be joined.

    Examples
    --------
    >>> ranks = {("a", "b"): 1, ("b", "c"): 0}
    >>> merge_pairs(list("abcab"), lambda left, right: ranks.get((left, right)))
    ['a', 'bc', 'ab']
    """
    end = len(symbols)
    parts: list[str | None] = [*symbols]
    before = list(range(-1, end - 1))
    after = list(range(1, end + 1))
    queue: list[tuple[float, int, int, int]] = []  # rank, index of the left symbol, and the length of each: stale when it changed
    for i, (left, right) in enumerate(pairwise(symbols)):
        found = rank(left, right)
        if found is not None:
            queue.append((found, i, len(left), len(right)))
    heapify(queue)

    def offer(i: int, j: int) -> None:
        a, b = parts[i], parts[j]
        assert a is not None
        assert b is not None
        found = rank(a, b)
        if found is not None:
            heappush(queue, (found, i, len(a), len(b)))

    while queue:
        _, i, left_len, right_len = heappop(queue)
        a, j = parts[i], after[i]
        if a is None or j == end or len(a) != left_len:
            continue
        b = parts[j]
        if b is None or len(b) != right_len:
            continue
        parts[i], parts[j] = a + b, None
        after[i] = after[j]
        if after[i] < end:
            before[after[i]] = i
            offer(i, after[i])
        if before[i] >= 0:
            offer(before[i], i)
    return [part for part in parts if part is not None]
