"""Write the generated parts of README.md and docs/: tables made from the registries, so that they cannot go stale.

A generated part lies between ``<!-- generated: NAME -->`` and ``<!-- end -->``. ``--check`` writes nothing and exits with 1
if a file would change; ``make lint`` calls it so.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

import quantrs as qr
from quantrs import schemes

ROOT = Path(__file__).resolve().parent.parent
PART = re.compile(r"(<!-- generated: (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Format a Markdown table."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def block_formats() -> str:
    """One row per block format, by type id: bits per weight, block, what can be done."""
    words = {"ignored": "-", "used": "optional", "required": "required"}
    rows = [
        (
            f"`{t.name}`",
            f"{t.bits_per_weight:g}",
            f"{t.block_size}",
            f"{t.type_size}",
            "yes" if t.can_quantize else "-",
            "yes" if t.can_dequantize else "-",
            words[t.importance] if t.can_quantize else "-",
        )
        for t in qr.types()
        if t.can_dequantize
    ]
    return table(("type", "bits per weight", "values per block", "bytes per block", "quantize", "dequantize", "importance"), rows)


def file_types() -> str:
    """One row per file type that ``--to`` takes."""
    rows = [
        (
            f"`{t.name}`",
            "-" if t.id is None else str(t.id),
            "-" if t.default_type is None else f"`{t.default_type}`",
            "yes" if t.default_type is None or schemes.writable(t.default_type) else "not yet",
        )
        for t in schemes.FILE_TYPES
    ]
    return table(("file type", "number", "default", "written"), rows)


PARTS: dict[str, Callable[[], str]] = {"block-formats": block_formats, "file-types": file_types}


def main() -> int:
    """Rewrite or check every Markdown file that has a generated part."""
    parser = argparse.ArgumentParser(description="Write the generated parts of README.md and docs/.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if something would change")
    check: bool = parser.parse_args().check
    stale = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        old = path.read_text(encoding="utf-8")
        new = PART.sub(lambda m: m[1] + PARTS[m["name"]]() + m[3], old)
        if new != old:
            stale.append(path.relative_to(ROOT).as_posix())
            if not check:
                path.write_text(new, encoding="utf-8")
    if stale:
        print(f"{'out of date, run make docs-update' if check else 'written'}: {', '.join(stale)}", file=sys.stderr)
    return 1 if stale and check else 0


if __name__ == "__main__":
    sys.exit(main())
