"""``--tensor-type`` patterns: ECMAScript regular expressions, as ``llama-quantize`` takes them, searched in tensor names.

Python's `re` reads nearly the same language. What differs is translated or refused, so that a pattern never means
something else here than there. Names are searched as UTF-8 bytes, like there.
"""

import re

from quantrs.errors import UsageError

__all__ = ["Pattern", "compile_ecmascript"]

Pattern = re.Pattern[bytes]

_POSIX_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": r" \t",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r" \t\n\r\f\v",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}

_ESCAPES = frozenset("bBdDsSwWfnrtv0123456789")
_QUANTIFIER = re.compile(r"[*+?]|\{[0-9]+(?:,[0-9]*)?\}")


def compile_ecmascript(pattern: str, *, where: str) -> Pattern:
    """Compile `pattern`; `where` names the option in the error.

    Raises
    ------
    UsageError
        The pattern is malformed, or uses syntax that ECMAScript does not have.

    Examples
    --------
    >>> bool(compile_ecmascript(r"blk\\.[01]\\.ffn", where="--tensor-type").search(b"blk.1.ffn_up.weight"))
    True
    """
    try:
        return re.compile(_translate(pattern).encode("utf-8", "surrogateescape"))
    except (re.error, ValueError, OverflowError) as error:
        raise UsageError(f"{where}: {pattern!r} is not a regular expression: {error}") from None


def _translate(pattern: str) -> str:
    out: list[str] = []
    at, after_quantifier = 0, False
    while at < len(pattern):
        char = pattern[at]
        quantifier = _QUANTIFIER.match(pattern, at)
        if quantifier:
            lazy = pattern.startswith("?", quantifier.end())
            if after_quantifier:
                raise ValueError(f"a quantifier follows a quantifier at position {at}")
            out.append(quantifier[0] + ("?" if lazy else ""))
            at, after_quantifier = quantifier.end() + lazy, True
            continue
        after_quantifier = False
        if char == "\\":
            out.append(_escape(pattern, at))
            at += 2
        elif char == "[":
            text, at = _bracket(pattern, at)
            out.append(text)
        elif char == "(" and pattern.startswith("?", at + 1):
            if pattern[at + 2 : at + 3] not in (":", "=", "!"):
                raise ValueError(f"unknown group {pattern[at : at + 3]!r} at position {at}; (?: (?= and (?! are known")
            out.append(pattern[at : at + 3])
            at += 3
        elif char == "{":
            raise ValueError(f"{{ without a count at position {at}; write \\{{ for the character")
        else:
            # ECMAScript's $ does not match before a final line end, and its dot excludes \r too.
            out.append({"$": r"\Z", ".": r"[^\n\r]"}.get(char, char))
            at += 1
    return "".join(out)


def _escape(pattern: str, at: int) -> str:
    char = pattern[at + 1 : at + 2]
    if not char:
        raise ValueError("the pattern ends with a backslash")
    if char.isalnum() and char not in _ESCAPES:
        raise ValueError(f"unknown escape \\{char} at position {at}")
    return "\\" + char


def _bracket(pattern: str, start: int) -> tuple[str, int]:
    """Translate a bracket expression; returns it and the position after it."""
    negated = pattern.startswith("^", start + 1)
    at, parts = start + 1 + negated, []
    while at < len(pattern) and pattern[at] != "]":
        named = re.compile(r"\[:([a-z]+):\]").match(pattern, at)
        if named:
            if named[1] not in _POSIX_CLASSES:
                raise ValueError(f"unknown class {named[0]} at position {at}")
            parts.append(_POSIX_CLASSES[named[1]])
            at = named.end()
        elif pattern[at] == "\\":
            parts.append(_escape(pattern, at))
            at += 2
        else:
            # Python reads nested brackets and doubled operators as set operations of the future, with a warning.
            parts.append("\\" + pattern[at] if pattern[at] in "[&~|^" else pattern[at])
            at += 1
    if at == len(pattern):
        raise ValueError(f"[ without ] at position {start}")
    if not parts:
        return (r"[\x00-\xff]" if negated else r"(?!)"), at + 1
    return f"[{'^' if negated else ''}{''.join(parts)}]", at + 1
