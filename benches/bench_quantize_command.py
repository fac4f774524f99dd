"""`quantrs quantize` against `llama-quantize`: whole commands, both files synced to disk, F16 weights whose rows are multiples of 256."""

import filecmp
import os
import subprocess
import sys
from pathlib import Path

import pytest

from synthetic import write_llama

WANTED = {"Q2_K": 4, "Q3_K_M": 4, "Q4_K_M": 4, "Q5_K_M": 4, "Q6_K": 4, "IQ4_XS": 3, "IQ4_NL": 3, "Q4_0": 2, "Q8_0": 2}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """0.24 G weights, 0.48 GB."""
    return write_llama(tmp_path_factory.mktemp("model") / "model.gguf", n_layers=4, hidden=2048, ffn=5632, n_vocab=8192)


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


@pytest.mark.parametrize("name", WANTED)
def bench_quantize(versus, peers: Path, model: Path, name: str) -> None:
    ours, theirs = model.with_name("ours.gguf"), model.with_name("theirs.gguf")

    def run_ours() -> None:  # syncs by itself
        subprocess.run([sys.executable, "-m", "quantrs", "quantize", model, ours, "--to", name, "--force"], check=True, capture_output=True)

    def run_theirs() -> None:
        subprocess.run([peers / "llama-quantize", model, theirs, name], check=True, capture_output=True)
        sync(theirs)

    versus(f"quantize --to {name}", run_ours, "llama-quantize", run_theirs, wanted=WANTED[name], rounds=3, note="0.24 G weights")
    assert filecmp.cmp(ours, theirs, shallow=False), "the files differ: was llama-quantize built with floating-point contraction?"
