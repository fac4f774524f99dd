"""Compare quantrs with the arrays that ggml wrote; shared by the in-process test and by the process that runs at one CPU level.

As a program, ``python golden_ggml.py FOLDER THREADS`` compares every type and prints one line per difference.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import quantrs as qr

NOT_A_TYPE = {"inputs", "imatrix", "dot", "grids"}


def golden_types(folder: Path) -> list[str]:
    """Names of the types that have a golden file."""
    return sorted(p.stem for p in folder.glob("*.npz") if p.stem not in NOT_A_TYPE)


def differences(folder: Path, name: str, threads: int | None = None) -> Iterator[str]:
    """Yield a text for every array of type `name` that is not equal to ggml's, bytes and decoded values."""
    facts = {t.name: t for t in qr.types()}[name.lower()]
    with np.load(folder / "inputs.npz") as inputs, np.load(folder / "imatrix.npz") as imatrix, np.load(folder / f"{name}.npz") as golden:
        for key in golden.files:
            group, _, what = key.partition("/")
            importance = imatrix[group] if what.endswith("_im") else None
            if what.startswith("packed") and facts.can_quantize:
                valid = golden[f"edge/valid{what.removeprefix('packed')}"] if group == "edge" else np.ones(len(inputs[group]), bool)
                yield from bytes_that_differ(name, key, inputs[group], golden[key], valid, importance, threads)
            elif what.startswith("dequant"):
                packed = golden[key.replace("dequant", "packed")]
                yield from values_that_differ(name, key, packed, golden[key], threads)


def bytes_that_differ(
    name: str,
    key: str,
    x: np.ndarray,
    want: np.ndarray,
    valid: np.ndarray,
    importance: np.ndarray | None,
    threads: int | None,
) -> Iterator[str]:
    """Quantize the rows that ggml's own validation passes and compare; every other row has to be refused."""
    warnings.simplefilter("ignore", qr.QuantrsWarning)  # NVFP4 clips some edge rows as ggml does, and says so
    got = np.asarray(qr.quantize(x[valid], name, importance=importance, threads=threads).data).reshape(want[valid].shape)
    wrong = np.argwhere(got != want[valid])
    if len(wrong):
        row, byte = wrong[0]
        found = f"{got[row, byte]} for {want[valid][row, byte]}"
        yield f"{name} {key}: {len(wrong)} bytes differ, first row {np.flatnonzero(valid)[row]} byte {byte}: {found}"
    for row in np.flatnonzero(~valid):
        try:
            qr.quantize(x[row], name, importance=importance, threads=threads)
        except ValueError:
            continue
        yield f"{name} {key}: row {row}, whose scale float16 cannot hold, was accepted"


def values_that_differ(name: str, key: str, packed: np.ndarray, want: np.ndarray, threads: int | None) -> Iterator[str]:
    """Decode ggml's bytes and compare bit for bit; NaN (of rows that ggml calls invalid) equals NaN."""
    got = qr.QuantizedArray.from_bytes(packed.tobytes(), name, want.shape).dequantize(threads=threads)
    same = (got.view(np.uint32) == want.view(np.uint32)) | (np.isnan(got) & np.isnan(want))
    if not same.all():
        row, column = np.argwhere(~same)[0]
        found = f"{got[row, column]!r} for {want[row, column]!r}"
        yield f"{name} {key}: {(~same).sum()} values differ, first row {row} column {column}: {found}"


if __name__ == "__main__":
    for type_name in golden_types(Path(sys.argv[1])):
        for text in differences(Path(sys.argv[1]), type_name, int(sys.argv[2])):
            print(text)
