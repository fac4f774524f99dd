"""Recipes: a TOML file of ordered rules that say what chosen tensors become.

See ``docs/recipes.md`` for the format. A recipe speaks of tensors that may be quantized at all; norms and the like stay
as they are whatever it says.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from quantrs.errors import FileError, InputError, UsageError
from quantrs.schemes import tensor_type

__all__ = ["Recipe", "Rule", "TypeOf"]


class TypeOf(Protocol):
    """Checks the name of a type, and returns it as the plan spells it."""

    def __call__(self, text: str, *, where: str) -> str:
        """Read `text`; `where` names the rule in messages."""
        ...


@dataclass(frozen=True)
class Rule:
    """One ``[[rule]]``."""

    number: int
    """From 1, as the messages count."""
    match: re.Pattern[str]
    """Searched in the tensor name."""
    type_name: str | None
    """Tensor type as the registry spells it; None to keep the source's."""

    @property
    def why(self) -> str:
        """The rule as the plan shows it."""
        return f"recipe rule {self.number} '{self.match.pattern}'"


class Recipe:
    """Rules in order; the first whose pattern is found in the name decides."""

    def __init__(self, rules: tuple[Rule, ...], source: str) -> None:
        self.rules = rules
        self._source = source
        self._matched: set[int] = set()

    @staticmethod
    def read(path: str | Path, *, type_of: TypeOf | None = None) -> "Recipe":
        """Read a recipe file; `type_of` reads the types of its rules, which are GGUF's unless given.

        Raises
        ------
        FileError
            The file cannot be read.
        UsageError
            It is not TOML, has a key that is not known, or a rule that makes no sense.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise FileError(f"recipe: cannot read {path}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise UsageError(f"recipe {path}: not UTF-8 at byte {error.start}") from None
        return Recipe.parse(text, str(path), type_of=type_of)

    @staticmethod
    def parse(text: str, source: str = "recipe", *, type_of: TypeOf | None = None) -> "Recipe":
        """Read the text of a recipe; `source` names it in messages, `type_of` as in `read`.

        Examples
        --------
        >>> recipe = Recipe.parse("[[rule]]\\nmatch = 'ffn_down'\\ntype = 'q6_k'")
        >>> recipe.rule_for("blk.0.ffn_down.weight").type_name
        'Q6_K'
        """
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"recipe {source}: not TOML: {error}") from None
        unknown = table.keys() - {"rule"}
        if unknown:
            raise UsageError(f"recipe {source}: found key {min(unknown)!r}, expected only [[rule]] tables")
        rows = table.get("rule")
        if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
            raise UsageError(f"recipe {source}: expected one or more [[rule]] tables")
        return Recipe(tuple(_rule(number, row, source, type_of or tensor_type) for number, row in enumerate(rows, 1)), source)

    def rule_for(self, name: str) -> Rule | None:
        """The rule that decides on a tensor, or None."""
        deciding = None
        for rule in self.rules:
            if rule.match.search(name):
                self._matched.add(rule.number)
                deciding = deciding or rule
        return deciding

    def check_all_matched(self) -> None:
        """After every tensor was asked for: raise `InputError` if a rule found none."""
        for rule in self.rules:
            if rule.number not in self._matched:
                raise InputError(
                    f"recipe {self._source}: rule {rule.number} (match = {rule.match.pattern!r}) matches no tensor that can be "
                    f"quantized; correct the pattern (`quantrs plan` lists the names) or remove the rule"
                )


def _rule(number: int, row: dict[str, object], source: str, type_of: TypeOf) -> Rule:
    where = f"recipe {source}: rule {number}"
    unknown = row.keys() - {"match", "type", "keep"}
    if unknown:
        raise UsageError(f"{where}: found key {min(unknown)!r}, expected match, and type or keep")
    match, type_name, keep = row.get("match"), row.get("type"), row.get("keep")
    if not isinstance(match, str) or not match:
        raise UsageError(f'{where}: expected match = "a regular expression for tensor names", found {match!r}')
    if (type_name is None) == (keep is None):
        raise UsageError(f'{where}: expected either type = "q6_k" or keep = true, found {"neither" if keep is None else "both"}')
    if keep is not None and keep is not True:
        raise UsageError(f"{where}: found keep = {keep!r}, expected keep = true; to quantize, give a type instead")
    if type_name is not None and not isinstance(type_name, str):
        raise UsageError(f'{where}: found type = {type_name!r}, expected the name of a tensor type such as "q6_k"')
    try:
        pattern = re.compile(match)
    except (re.error, OverflowError) as error:
        raise UsageError(f"{where}: match = {match!r} is not a regular expression: {error}") from None
    return Rule(number, pattern, None if type_name is None else type_of(type_name, where=where))
