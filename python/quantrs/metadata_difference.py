"""Key/values of two files side by side: those that the model computes with, and the rest."""

import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from quantrs.errors import QuantrsError
from quantrs.text import printable
from quantrs.verify import Finding

if TYPE_CHECKING:
    from quantrs._native import Gguf

__all__ = ["metadata_differences"]

_FLOAT_TOLERANCE = 1e-6
_MAX_SHOWN = 48
_TOKENIZER_SWITCHES = ("_token_id", "_token_ids", ".add_bos_token", ".add_eos_token", ".add_space_prefix")


def metadata_differences(a: "Gguf", b: "Gguf") -> tuple[list[Finding], list[str]]:
    """Findings and notices.

    Hyperparameters, and what the tokenizer puts before, after and between, are findings where both files name them. A key that only
    one names is a notice, since readers take a default; but where that default makes another graph, that is a finding too.
    """
    architecture = a.get("general.architecture")
    other = b.get("general.architecture")
    if architecture != other:
        found = f"{_shown(architecture)} in A, {_shown(other)} in B; their hyperparameters are not compared"
        return [Finding(where="general.architecture", what=found)], []
    findings, notices = [], []
    keys_of_b = b.keys()
    known = set(keys_of_b)
    for key in a.keys():
        if key not in known:
            notices.append(f"{key}: only in A")
            continue
        value, other = a.get(key), b.get(key)
        if _equal(value, other):
            continue
        what = f"{_difference(value, other)}"
        if key.startswith(f"{architecture}.") or (key.startswith("tokenizer.") and key.endswith(_TOKENIZER_SWITCHES)):
            findings.append(Finding(where=key, what=what))
        else:
            notices.append(f"{key}: {what}")
    in_a = set(a.keys())
    notices += [f"{key}: only in B" for key in keys_of_b if key not in in_a]
    if not findings:
        findings += _graph_findings(a, b)
    return findings, notices


def _graph_findings(a: "Gguf", b: "Gguf") -> list[Finding]:
    """Where the graphs differ that the engine would run, so that defaults count; nothing for models that it cannot run."""
    from quantrs.families import graph_of

    try:
        first, second = (json.loads(graph_of(gguf)[0].to_json()) for gguf in (a, b))
    except QuantrsError:
        return []
    places = list(_places(first, second, ""))
    if not places:
        return []
    place, value, other = places[0]
    more = f", and {len(places) - 1} more places" if len(places) > 1 else ""
    return [Finding(where="graph", what=f"{place} is {_shown(value)} in A, {_shown(other)} in B{more}")]


def _places(a: object, b: object, place: str) -> Iterator[tuple[str, object, object]]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys((*a, *b)):
            yield from _places(a.get(key), b.get(key), f"{place}.{key}" if place else key)
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from _places(x, y, f"{place}[{i}]")
    elif not _equal(a, b):
        yield place, a, b


def _equal(a: object, b: object) -> bool:
    if isinstance(a, list) and isinstance(b, list):
        return a == b or (len(a) == len(b) and all(map(_equal, a, b)))
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a == b or math.isclose(a, b, rel_tol=_FLOAT_TOLERANCE if isinstance(a, float) or isinstance(b, float) else 0.0)
    return a == b


def _difference(a: object, b: object) -> str:
    if isinstance(a, list) and isinstance(b, list):
        if len(a) != len(b):
            return f"{len(a)} values in A, {len(b)} in B"
        at = [i for i, (x, y) in enumerate(zip(a, b, strict=True)) if not _equal(x, y)]
        return f"{len(at)} of {len(a)} values differ, the first is number {at[0]}: {_shown(a[at[0]])} in A, {_shown(b[at[0]])} in B"
    return f"{_shown(a)} in A, {_shown(b)} in B"


def _shown(value: object) -> str:
    text = printable(value if isinstance(value, str) else repr(value))
    return f"{text[:_MAX_SHOWN]}…" if len(text) > _MAX_SHOWN else text
