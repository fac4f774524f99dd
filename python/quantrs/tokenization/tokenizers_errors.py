"""Failures of the `tokenizers` library as errors of quantrs: it raises the bare class, and panics where a regular expression gives up."""

from collections.abc import Iterator
from contextlib import contextmanager

from quantrs.errors import FormatError

__all__ = ["tokenizers_errors"]


@contextmanager
def tokenizers_errors(where: str, expected: str) -> Iterator[None]:
    """Turn what the library raises within the block into a FormatError that begins with `where` and ends with `expected`."""
    try:
        yield
    except FormatError:
        raise
    except Exception as error:
        raise FormatError(f"{where}: {error}; {expected}") from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # the class has no importable name
            raise
        raise FormatError(f"{where}: {error}; {expected}") from None
