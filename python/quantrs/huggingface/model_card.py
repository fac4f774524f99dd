"""The front matter of a model card: the lines between two ``---`` at the top of a README.

A small part of YAML is understood: ``key: text`` and lists of texts, in brackets or one to a line. The rest is skipped.
"""

import re
from pathlib import Path

__all__ = ["read_model_card"]

_MAX_BYTES = 1 << 20
_PAIR = re.compile(r"([A-Za-z_][\w-]*):(?:\s+(.*))?$")


def read_model_card(path: Path) -> "dict[str, str | list[str]]":
    """Keys and values; empty when there is no card, no front matter, or none that can be read."""
    try:
        with path.open("rb") as file:
            lines = file.read(_MAX_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        return {}
    if not lines or lines[0] != "---" or "---" not in lines[1:]:
        return {}
    card: dict[str, str | list[str]] = {}
    key = None
    for line in lines[1 : lines.index("---", 1)]:
        pair = _PAIR.match(line)
        item = re.match(r"\s*-\s+(.*)$", line)
        if pair:
            key, text = pair[1], _plain(pair[2] or "")
            if text.startswith("[") and text.endswith("]"):
                card[key] = [_plain(part) for part in text[1:-1].split(",") if part.strip()]
            elif text and text[0] not in "{|>&*!":
                card[key] = text
        elif item and key is not None and not isinstance(card.get(key), str):
            text = _plain(item[1])
            if text and not _PAIR.match(text):  # a list of objects is not for us
                listed = card.setdefault(key, [])
                if isinstance(listed, list):
                    listed.append(text)
        elif line.strip() and not line.startswith((" ", "#")):
            key = None
    return {name: value for name, value in card.items() if value and value != "null"}


def _plain(text: str) -> str:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    return text.split(" #")[0].strip()
