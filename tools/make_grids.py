"""Write ``rust/quantrs-blocks/src/tables/grid_codes.rs``: the fixed point sets of the IQ1, IQ2 and IQ3 formats.

``python tools/make_grids.py [--check]`` reads ``tests/golden/ggml/grids.npz``. A point of 8 (or 4) small digits is one
number in base 4 (or 8), its code; the points of a grid are stored as their ascending codes, which is also the order of the
indices in packed blocks. ``--check`` writes nothing and fails if the file would change.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
GRIDS = ROOT / "tests" / "golden" / "ggml" / "grids.npz"
TARGET = ROOT / "rust" / "quantrs-blocks" / "src" / "tables" / "grid_codes.rs"
NAMES = {"iq1s": "IQ1_S and IQ1_M", "iq2xxs": "IQ2_XXS", "iq2xs": "IQ2_XS", "iq2s": "IQ2_S", "iq3xxs": "IQ3_XXS", "iq3s": "IQ3_S"}
HEAD = """\
//! The points of the grids as codes: digits of two bits (eight per point) or three bits (four per point), element 0 lowest.
//!
//! Written by `tools/make_grids.py` from ggml's tables (`src/ggml-common.h` at llama.cpp 0c1e57098).
"""
MAX_WIDTH = 119  # what rustfmt keeps of max_width = 120 in a list


def codes_of(digits: np.ndarray[tuple[int, int], np.dtype[np.uint8]]) -> list[int]:
    """The code of each point, ``digits: [n_points, 8 or 4]``, in the order of the points."""
    bits = {8: 2, 4: 3}[digits.shape[1]]
    weights = 1 << (bits * np.arange(digits.shape[1], dtype=np.int64))
    codes: list[int] = (digits.astype(np.int64) @ weights).tolist()
    if codes != sorted(set(codes)):
        raise SystemExit(f"{GRIDS}: the points of a grid are not in ascending order of their codes")
    return codes


def table(name: str, codes: list[int]) -> str:
    """One static array, its numbers filled up to the line width as rustfmt does."""
    lines, line = [], "   "
    for code in codes:
        item = f" {code},"
        if len(line) + len(item) > MAX_WIDTH:
            lines.append(line)
            line = "   "
        line += item
    lines.append(line)
    head = f"/// {NAMES[name]}.\npub(crate) const {name.upper()}: [u16; {len(codes)}] = ["
    return "\n".join([head, *lines, "];"])


def main() -> int:
    """Write the file, or compare it."""
    parser = argparse.ArgumentParser(description="Write the grid tables of the IQ formats.")
    parser.add_argument("--check", action="store_true", help="fail if the file is not up to date")
    check: bool = parser.parse_args().check
    with np.load(GRIDS) as grids:
        text = "\n".join([HEAD, "\n\n".join(table(name, codes_of(grids[f"{name}_digits"])) for name in NAMES), ""])
    if not check:
        TARGET.write_text(text, encoding="utf-8")
    elif TARGET.read_text(encoding="utf-8") != text:
        print(f"{TARGET}: not what tools/make_grids.py writes; run it", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
