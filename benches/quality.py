"""Perplexity and KL divergence of a model under every method, on text that none of them was calibrated on.

``python benches/quality.py MODEL --calib calib.txt --eval eval.txt`` quantizes MODEL again and again into a temporary folder, measures the
written file against MODEL, and prints a table in Markdown. ``--only PATTERN`` takes the rows whose name it is found in.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import quantrs as qr
from quantrs.evaluation import kl_divergence
from quantrs.whole_files import read_text


@dataclass(frozen=True)
class Row:
    """One way to quantize."""

    name: str
    to: str
    method: str | None = None
    calibrated: bool = True


def rows(groups: tuple[int, ...]) -> Iterator[Row]:
    """Every row, the same bits together."""
    for bits in (4, 3, 2):
        for group in groups:
            grid = f"w{bits}-g{group}"
            yield Row(f"{grid} RTN", f"gptq-{grid}", "rtn", calibrated=False)
            yield Row(f"{grid} RTN asymmetric", f"gptq-{grid}-asym", "rtn", calibrated=False)
            yield Row(f"{grid} GPTQ", f"gptq-{grid}")
            yield Row(f"{grid} GPTQ act order", f"gptq-{grid}-act")
            yield Row(f"{grid} AWQ", f"gptq-{grid}-asym", "awq")
    for name in ("Q4_K_M", "Q3_K_M", "Q2_K"):
        yield Row(name, name, calibrated=False)
        yield Row(f"{name} imatrix", name)


def main() -> None:
    """Print the table, a line as soon as it is known."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--calib", required=True)
    parser.add_argument("--eval", required=True)
    parser.add_argument("--sequences", type=int, default=128)
    parser.add_argument("--chunks", type=int)
    parser.add_argument("--groups", default="128,32")
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    text = read_text(args.eval)
    print("| | bits per weight | perplexity | KL divergence | s |\n|---|---|---|---|---|", flush=True)
    for row in rows(tuple(map(int, args.groups.split(",")))):
        if re.search(args.only, row.name):
            print(measured(row, args, text), flush=True)


def measured(row: Row, args: argparse.Namespace, text: str) -> str:
    """One line of the table."""
    calibration = qr.CalibrationOptions(text=args.calib, sequences=args.sequences) if row.calibrated else None
    with tempfile.TemporaryDirectory() as folder:
        is_gguf = row.to.startswith("Q")
        dst = Path(folder) / ("model.gguf" if is_gguf else "model")
        pre = "llama-bpe" if is_gguf and Path(args.model).is_dir() else None
        started = time.perf_counter()
        report = qr.quantize_checkpoint(
            args.model, dst, scheme=row.to, method=row.method, calibration=calibration, pre=pre, allow_requantize=True
        )
        seconds = time.perf_counter() - started
        found = kl_divergence(qr.Session(dst, n_ctx=512), qr.Session(args.model, n_ctx=512), text, ctx=512, max_chunks=args.chunks)
    return f"| {row.name} | {report.bits_per_weight:.3f} | {found.perplexity:.3f} | {found.kl_mean:.5f} | {seconds:.1f} |"


if __name__ == "__main__":
    main()
