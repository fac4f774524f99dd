"""Find strings in text that comes piece by piece, and let nothing of them through."""

from collections.abc import Collection

from quantrs.errors import UsageError

__all__ = ["StopStrings"]


class StopStrings:
    """Passes text on until one of some strings comes.

    Parameters
    ----------
    strings
        What to look for; they may span pieces. A single string counts as one.

    Raises
    ------
    UsageError
        One of them is empty.

    Examples
    --------
    >>> stops = StopStrings(["\\nUser:"])
    >>> [stops.push(piece) for piece in ("Hello", "\\n", "Use", " it.\\nUser: Hi")]
    ['Hello', '', '', '\\nUse it.']
    >>> stops.found
    '\\nUser:'
    """

    def __init__(self, strings: str | Collection[str] = ()) -> None:
        self._strings = (strings,) if isinstance(strings, str) else tuple(strings)
        if "" in self._strings:
            raise UsageError("stop: found an empty string, expected at least one character; every text holds the empty one")
        self._held = ""
        self.found: str | None = None
        """The string that came."""

    def push(self, text: str) -> str:
        """What can be passed on: text that cannot become one of the strings, and nothing once one has come."""
        if self.found is not None:
            return ""
        text = self._held + text
        places = [(place, string) for string in self._strings if (place := text.find(string)) >= 0]
        if places:
            place, self.found = min(places)
            self._held = ""
            return text[:place]
        n_held = max((_overlap(text, string) for string in self._strings), default=0)
        self._held = text[len(text) - n_held :]
        return text[: len(text) - n_held]

    def finish(self) -> str:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, string: str) -> int:
    """Characters at the end of `text` that `string` begins with, not all of it."""
    return next((n for n in range(min(len(string) - 1, len(text)), 0, -1) if text.endswith(string[:n])), 0)
