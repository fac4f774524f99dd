"""How Hugging Face stores a family, as data that is read in both directions: names of weights, and keys of ``config.json``."""

import re
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from quantrs.families.source import Source
    from quantrs.huggingface.config import Config

__all__ = ["CheckpointFormat", "Computed", "Entry", "Key", "Setting", "Value", "Weight", "numbered", "shortest_float32", "template_of"]

Value = bool | int | float | str | list[bool] | list[int] | list[float] | list[str]
Entry = tuple[str, Value, str]
"""GGUF key without the architecture's prefix, value, value type."""


@dataclass(frozen=True)
class Weight:
    """One row of names, without ``.weight`` or ``.bias``. ``{i}`` stands for the block, ``{x}`` for the expert."""

    gguf: str
    huggingface: str
    order: Literal["as_stored", "query_heads", "key_heads"] = "as_stored"
    """Rows of a head: transformers keeps the halves that are rotated together one after the other, GGUF in pairs."""
    transposed: bool = False
    """Stored as ``[in_features, out_features]``."""
    vector: bool = False
    """One axis instead of two."""
    add: float = 0.0
    """What GGUF adds to each value."""
    optional: bool = False
    """Not every model of the family, or not every block, has it."""


@dataclass(frozen=True)
class Key:
    """One value that both have. Absent without a default and not optional is an error."""

    gguf: str
    config: str | tuple[str, ...]
    """Names in ``config.json``; the first is written."""
    type: Literal["u32", "f32", "bool"] = "u32"
    default: "float | Callable[[Config], float] | None" = None
    """What transformers takes when the file does not say."""
    optional: bool = False
    at_least: int = 1

    @property
    def names(self) -> tuple[str, ...]:
        """All names in ``config.json``."""
        return (self.config,) if isinstance(self.config, str) else self.config

    def to_gguf(self, config: "Config") -> "list[Entry]":
        """The key with the checked value, or nothing."""
        if self.optional and config.get(*self.names) is None:
            return []
        default = self.default(config) if callable(self.default) else self.default
        if self.type == "bool":
            return [(self.gguf, config.flag(self.names[0], default=bool(default)), "bool")]
        if self.type == "f32":
            return [(self.gguf, config.number(*self.names, default=default), "f32")]
        whole = None if default is None else int(default)
        return [(self.gguf, config.integer(*self.names, default=whole, at_least=self.at_least), "u32")]

    def to_config(self, model: "Source") -> dict[str, object]:
        """The value under its name in ``config.json``, or nothing."""
        if model.value(self.gguf) is None:
            return {}
        if self.type == "bool":
            return {self.names[0]: model.flag(self.gguf)}
        if self.type == "f32":
            return {self.names[0]: shortest_float32(model.number(self.gguf))}
        return {self.names[0]: model.integer(self.gguf, at_least=self.at_least)}


@dataclass(frozen=True)
class Computed:
    """Keys that are not one to one."""

    to_gguf: "Callable[[Config], Iterable[Entry]]"
    to_config: "Callable[[Source], Mapping[str, object]]"


@dataclass(frozen=True)
class Setting:
    """A value of ``config.json`` that the architecture implies: checked on the way in, written on the way out."""

    config: str
    values: tuple[object, ...]
    """Those that mean the same; the first is written. Absent is always right."""


@dataclass(frozen=True, kw_only=True)
class CheckpointFormat:
    """One kind of Hugging Face checkpoint."""

    model_type: str
    """In ``config.json``."""
    model_class: str
    """In its ``architectures``."""
    weights: tuple[Weight, ...]
    keys: tuple[Key | Computed, ...]
    settings: tuple[Setting, ...] = ()
    prefix: str = "model."
    """Of weight names; checkpoints of the bare model, without the output matrix, leave it out."""
    drops: tuple[str, ...] = ()
    """Weights that some checkpoints hold and GGUF files do not, besides buffers."""
    other_model_types: tuple[str, ...] = ()
    """Those that are stored in the same way."""
    fits: "Callable[[Source], bool]" = field(default=lambda _model: True)
    """Whether a GGUF file is best written back in this way; the first row of a family that fits is taken."""

    def by_huggingface(self) -> dict[str, Weight]:
        """Rows by their name template."""
        return {weight.huggingface: weight for weight in self.weights}

    def by_gguf(self) -> dict[str, Weight]:
        """Rows by their name template."""
        return {weight.gguf: weight for weight in self.weights}


_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


def template_of(name: str) -> tuple[str, list[int]]:
    """A weight's name with letters for its first two numbers, and the numbers.

    Examples
    --------
    >>> template_of("model.layers.3.mlp.experts.12.up_proj")
    ('model.layers.{i}.mlp.experts.{x}.up_proj', [3, 12])
    """
    numbers = [int(digits[:9]) for digits in _NUMBER.findall(name)[:2]]
    letters = iter("ix")
    return _NUMBER.sub(lambda _: f"{{{next(letters)}}}", name, count=2), numbers


def numbered(template: str, i: int, x: int = 0) -> str:
    """The name for a block and an expert."""
    return template.replace("{i}", str(i)).replace("{x}", str(x))


def shortest_float32(value: float) -> float:
    """The number of fewest digits that is this one in float32: what was in the ``config.json`` once.

    Examples
    --------
    >>> shortest_float32(9.999999974752427e-07)
    1e-06
    """
    packed = struct.pack("<f", value)
    for digits in range(1, 10):
        rounded = float(f"{value:.{digits}g}")
        if struct.pack("<f", rounded) == packed:
            return rounded
    return value
