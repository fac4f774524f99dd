"""What a ``config.json`` says, each value checked when it is read."""

import math
from collections.abc import Mapping
from pathlib import Path
from reprlib import Repr

from quantrs.errors import FormatError, InputError
from quantrs.tokenization.bounded_json import read_object

__all__ = ["Config"]

_MAX_BYTES = 4 << 20  # the largest in the wild are below 100 kB
_SHOWN = Repr()
_SHOWN.maxstring = _SHOWN.maxother = 60
_NESTED = ("text_config", "llm_config", "language_config")


class Config:
    """Hyperparameters of a model; of one with pictures or sound, those of its language model.

    Absent and null are the same. Several names for one value are tried in turn.
    """

    def __init__(self, values: Mapping[str, object], path: str) -> None:
        self.path = path
        nested = next((values[key] for key in _NESTED if isinstance(values.get(key), dict)), {})
        self.values: dict[str, object] = {**values, **(nested if isinstance(nested, dict) else {})}
        """All of it, with the language model's values moved up."""
        self.is_multimodal = bool(nested)

    @staticmethod
    def read(path: Path) -> "Config":
        """The file's values.

        Raises
        ------
        FileError, FormatError
        """
        return Config(read_object(path, _MAX_BYTES), str(path))

    def part(self, name: str) -> "Config | None":
        """An object inside, such as ``rope_scaling``; its errors name it."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.wrong(name, value, "an object")
        return Config(value, f"{self.path}: in '{name}'")

    def get(self, *names: str) -> object:
        """The value, unchecked; None when absent or null."""
        return next((self.values[name] for name in names if self.values.get(name) is not None), None)

    def integer(self, *names: str, default: int | None = None, at_least: int = 1, at_most: int = 2**31 - 1) -> int:
        """A whole number in a range; absent without a default is an error."""
        value = self.get(*names)
        if value is None and default is not None:
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not at_least <= value <= at_most:
            raise self.wrong(names[0], value, f"a whole number of {at_least} to {at_most}")
        return value

    def number(self, *names: str, default: float | None = None, at_least: float | None = None) -> float:
        """A finite number that float32 can hold; absent without a default is an error."""
        value = self.get(*names)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not -3e38 < value < 3e38 or math.isnan(value):
            raise self.wrong(names[0], value, "a finite number")
        if at_least is not None and value < at_least:
            raise self.wrong(names[0], value, f"a number of at least {at_least:g}")
        return float(value)

    def optional_number(self, *names: str) -> float | None:
        """A finite number, or None when absent."""
        return None if self.get(*names) is None else self.number(*names)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A truth value."""
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(name, value, "true or false")
        return value

    def text(self, *names: str, default: str = "") -> str:
        """A string."""
        value = self.get(*names)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.wrong(names[0], value, "a string")
        return value

    def numbers(self, name: str, *, at_most: int = 4096) -> list[float] | None:
        """A list of finite numbers, or None when absent."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) > at_most:
            raise self.wrong(name, value, f"a list of at most {at_most} numbers")
        return [Config({name: item}, self.path).number(name) for item in value]

    def items(self, name: str, *, n_items: int | None = None) -> list[object] | None:
        """A list, of this many items if the number is given; or None when absent."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or (n_items is not None and len(value) != n_items):
            raise self.wrong(name, value, "a list" if n_items is None else f"a list of {n_items}")
        return value

    def wrong(self, name: str, found: object, expected: str) -> FormatError:
        """An error for a value that cannot be."""
        if found is None:
            return FormatError(f"{self.path}: '{name}' is missing, expected {expected}")
        return FormatError(f"{self.path}: '{name}' is {_SHOWN.repr(found)}, expected {expected}")

    def unsupported(self, what: str) -> InputError:
        """An error for a variant of a family that no GGUF file can describe."""
        return InputError(
            f"{self.path}: {what} cannot be described in a GGUF file; convert with --arch generic to keep the tensors as they are"
        )
