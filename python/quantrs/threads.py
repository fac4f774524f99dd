"""The ``threads`` argument that most calls take."""

import operator

from quantrs.errors import InputError

__all__ = ["checked"]


def checked(threads: int | None) -> int | None:
    """Let None, for all CPUs, and counts from 1 through.

    Raises
    ------
    InputError
        The count is below 1 or absurdly large.
    TypeError
        It is no integer.
    """
    if threads is None:
        return None
    count = operator.index(threads)
    if not 0 < count < 2**16:
        raise InputError(f"threads: found {count}, expected a number of 1 or more, or None for all CPUs")
    return count
