"""JSON files of strangers: read with limits, every failure a message that names the file."""

import json
from pathlib import Path

from quantrs.errors import FileError, FormatError

__all__ = ["JsonObject", "as_list", "as_object", "as_text", "as_whole_number", "parse_object", "read_bytes", "read_object", "read_text"]

JsonObject = dict[str, object]

MAX_BYTES = 256 << 20
"""The largest tokenizer.json in use has 35 MB."""


def read_text(path: Path, max_bytes: int = MAX_BYTES) -> str:
    """A UTF-8 file of at most `max_bytes`.

    Raises
    ------
    FileError
        It cannot be read.
    FormatError
        It is larger, or no UTF-8.
    """
    return _decoded(path, read_bytes(path, max_bytes))


def read_bytes(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """As `read_text`, any bytes."""
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}") from None
    if len(data) > max_bytes:
        raise FormatError(f"{path}: found more than {max_bytes} bytes, expected fewer in such a file")
    return data


def read_object(path: Path, max_bytes: int = MAX_BYTES) -> JsonObject:
    """A JSON file whose outermost value is an object; no key twice in any object.

    Raises
    ------
    FileError, FormatError
    """
    return parse_object(read_text(path, max_bytes), str(path))


def parse_object(text: str, where: str) -> JsonObject:
    """As `read_object` of a text; `where` begins the messages."""
    try:
        value = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
    except RecursionError:
        raise FormatError(f"{where}: objects or lists nested too deeply for a file of this kind") from None
    except ValueError as error:  # also integers of thousands of digits
        raise FormatError(f"{where}: {error}; expected JSON") from None
    return as_object(value, where)


def as_object(value: object, where: str) -> JsonObject:
    """The value as an object, or an error that begins with `where`."""
    if not isinstance(value, dict):
        raise FormatError(f"{where}: found {_kind(value)}, expected an object")
    return value


def as_list(value: object, where: str) -> list[object]:
    """The value as a list, or an error that begins with `where`."""
    if not isinstance(value, list):
        raise FormatError(f"{where}: found {_kind(value)}, expected a list")
    return value


def as_text(value: object, where: str) -> str:
    """The value as Unicode text, or an error that begins with `where`."""
    if not isinstance(value, str):
        raise FormatError(f"{where}: found {_kind(value)}, expected a string")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise FormatError(f"{where}: found half of a surrogate pair in {value!r}, expected Unicode text") from None
    return value


def as_whole_number(value: object, where: str) -> int:
    """The value as an int that is no bool, or an error that begins with `where`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise FormatError(f"{where}: found {_kind(value)}, expected a whole number")
    return value


def _decoded(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: found byte {data[error.start]:#04x} at offset {error.start}, expected UTF-8") from None


def _without_duplicates(pairs: list[tuple[str, object]]) -> JsonObject:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # adds in passing
        raise ValueError(f"the key {twice!r} occurs twice in one object")
    return found


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON value")


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    return {bool: "a bool", int: "a whole number", float: "a number", str: "a string", list: "a list", dict: "an object"}[type(value)]
