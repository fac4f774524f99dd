"""Errors of a step within a long job, told with what the step was about."""

from collections.abc import Iterator
from contextlib import contextmanager

from quantrs.errors import FormatError, InputError

__all__ = ["errors_of"]


@contextmanager
def errors_of(what: str) -> "Iterator[None]":
    """Put `what` in front of the message of an InputError or FormatError.

    Examples
    --------
    >>> with errors_of("blk.0.ffn_up.weight"):
    ...     raise InputError("found NaN in row 0")
    Traceback (most recent call last):
    ...
    quantrs._native.InputError: blk.0.ffn_up.weight: found NaN in row 0
    """
    try:
        yield
    except (InputError, FormatError) as error:
        raise type(error)(f"{what}: {error}") from error
