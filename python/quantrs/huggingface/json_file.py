"""JSON files that a stranger wrote, read within limits."""

import json
from pathlib import Path

from quantrs.errors import FileError, FormatError

__all__ = ["MAX_INDEX_BYTES", "read_json_object"]

MAX_BYTES = 4 << 20
"""Of a configuration; the largest in the wild are below 100 kB."""
MAX_INDEX_BYTES = 64 << 20
"""Of an index of shards, which names every tensor."""
MAX_DEPTH = 64
"""Of lists and objects within each other."""


def read_json_object(path: Path, *, max_bytes: int = MAX_BYTES) -> dict[str, object]:
    """The object in the file.

    Raises
    ------
    FileError
        The file cannot be read.
    FormatError
        It is too large, nested too deep, no JSON, or not an object.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(max_bytes + 1)
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}") from error
    if len(raw) > max_bytes:
        raise FormatError(f"{path}: larger than {max_bytes} bytes, which no such file has to be; it is not what its name says")
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError:
        raise FormatError(f"{path}: objects or lists are nested more than {MAX_DEPTH} deep") from None
    except ValueError as error:  # also of bytes that are not UTF-8
        raise FormatError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise FormatError(f"{path}: holds a {type(value).__name__}, expected an object")
    if _deeper_than(value, MAX_DEPTH):
        raise FormatError(f"{path}: objects or lists are nested more than {MAX_DEPTH} deep")
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON value")


def _deeper_than(value: object, depth: int) -> bool:
    level: list[object] = [value]
    for _ in range(depth):
        level = [child for item in level for child in _children(item)]
    return bool(level)


def _children(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
