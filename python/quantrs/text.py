"""Plain text for people: tables, sizes, and names from files that must not play tricks with a terminal."""

import re
import unicodedata
from collections.abc import Sequence

__all__ = ["human_bytes", "printable", "table", "visible"]


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: str = "") -> str:
    """Columns under a header; those whose number (from 0) is in `right` are aligned to the right.

    Examples
    --------
    >>> print(table(["type", "bytes"], [["q8_0", "34"], ["f16", "2"]], right="1"))
    type  bytes
    q8_0     34
    f16       2
    """
    cells = [[printable(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if str(i) in right else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )


def human_bytes(n_bytes: float) -> str:
    """Decimal units, three or four digits.

    Examples
    --------
    >>> human_bytes(981), human_bytes(98_123_456), human_bytes(4.2e9)
    ('981 B', '98.1 MB', '4.20 GB')
    """
    if n_bytes < 1000:
        return f"{n_bytes:.0f} B"
    units = ["kB", "MB", "GB", "TB"]
    n_bytes /= 1000
    while n_bytes >= 999.95 and len(units) > 1:
        n_bytes /= 1000
        units.pop(0)
    return f"{n_bytes:.{2 if n_bytes < 10 else 1}f} {units[0]}"


def printable(text: str) -> str:
    r"""Replace what is not printable, and bytes that were not UTF-8, by backslash escapes.

    Examples
    --------
    >>> printable("a\x1b[2Jb\n")
    'a\\x1b[2Jb\\n'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else _escape(c) for c in text)


def visible(text: str) -> str:
    r"""Replace what commands a terminal by backslash escapes; lines, tabs and every script stay as they are.

    Examples
    --------
    >>> visible("a\x1b[2Jb\tc\n")
    'a\\x1b[2Jb\tc\n'
    """
    return _COMMANDS.sub(lambda found: _escape(found[0]), text)


_COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def _escape(char: str) -> str:
    if 0xDC80 <= ord(char) <= 0xDCFF:  # a byte kept by surrogateescape
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")
