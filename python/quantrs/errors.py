"""Every error that quantrs raises itself.

`InputError`, `FileError` and `FormatError` come from the Rust module and are also a `ValueError`, an `OSError` and a `ValueError`.
"""

from quantrs._native import Cancelled, FileError, FormatError, InputError, QuantrsError

__all__ = ["Cancelled", "FileError", "FormatError", "InputError", "QuantrsError", "UsageError"]


class UsageError(InputError):
    """An option that no model could make sense of: unknown type name, malformed pattern. The command exits with 2."""
