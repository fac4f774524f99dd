"""How much of a weight matrix does each type keep? Bits per weight against signal to noise, for all types.

    python examples/compare_types.py [MODEL.gguf TENSOR]

Without arguments a matrix of Gaussian weights stands in for a real one.
"""

import sys

import numpy as np

import quantrs as qr


def main(arguments: list[str]) -> None:
    """Print one row per type, best first."""
    if arguments:
        path, name = arguments
        with qr.open(path) as model:
            w = model.tensors[name].dequantize()
    else:
        w = np.random.default_rng(0).standard_normal((512, 1024), np.float32) * 0.02

    rows = []
    for t in qr.types():
        if t.can_quantize and t.can_dequantize and w.shape[-1] % t.block_size == 0:
            error = qr.quantize(w, t.name).error(w)
            rows.append((error.sqnr_db, t.bits_per_weight, t.name, error.relative))
    print("type     bits/weight  SQNR dB  relative error")
    for sqnr_db, bits, name, relative in sorted(rows, reverse=True):
        print(f"{name:8} {bits:11.4f} {sqnr_db:8.2f} {relative:15.5f}")


if __name__ == "__main__":
    main(sys.argv[1:])
