"""Every error that quantrs raises itself.

`InputError`, `FileError` and `FormatError` come from the Rust module and are also a `ValueError`, an `OSError` and a `ValueError`.
"""

from quantrs._native import Cancelled, FileError, FormatError, InputError, QuantrsError

__all__ = ["Cancelled", "FileError", "FormatError", "InputError", "QuantrsError", "QuantrsWarning", "UsageError"]


class UsageError(InputError):
    """An option that no model could make sense of: unknown type name, malformed pattern. The command exits with 2."""


class QuantrsWarning(UserWarning):
    """The result is what was asked for, but something about it should be known, such as values that were clipped."""
