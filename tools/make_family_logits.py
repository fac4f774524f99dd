"""Compute the golden logits of the models in ``tests/family_models.py`` with llama.cpp.

``python tools/make_family_logits.py DUMP_LOGITS OUT`` runs the program built from ``tools/dump_logits.cpp`` over every model and
writes ``OUT/family_logits/logits.npz``; ``tools/make_golden.py OUT`` then takes it. The program is compiled by hand against a
build of llama.cpp: ``c++ -std=c++17 -I include -I ggml/include dump_logits.cpp -lllama -lggml -lggml-cpu -lggml-base -fopenmp``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from family_models import MODELS, N_VOCAB, TOKENS  # noqa: E402
from make_golden import save_npz  # noqa: E402


def main() -> int:
    """Run the program over every model."""
    parser = argparse.ArgumentParser(description="Compute golden logits with llama.cpp.")
    parser.add_argument("program", type=Path, metavar="DUMP_LOGITS")
    parser.add_argument("out", type=Path, metavar="OUT")
    args = parser.parse_args()
    logits = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in MODELS.items():
            path = Path(folder) / f"{name}.gguf"
            path.write_bytes(model.to_bytes())
            done = subprocess.run([args.program, path, *map(str, TOKENS)], check=True, capture_output=True)
            logits[name] = np.frombuffer(done.stdout, np.float32).reshape(len(TOKENS), N_VOCAB)
    (args.out / "family_logits").mkdir(parents=True, exist_ok=True)
    save_npz(args.out / "family_logits" / "logits.npz", logits)
    return 0


if __name__ == "__main__":
    sys.exit(main())
