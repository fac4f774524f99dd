"""`quantize` and `dequantize` of a 4096 x 4096 array against gguf-py, the NumPy implementation of the same formats."""

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants

import quantrs as qr

SHAPE = (4096, 4096)
NOTE = "4096 x 4096 float32"
BY_BOTH = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "bf16"]


@pytest.fixture(scope="module")
def w() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(SHAPE, np.float32)


@pytest.mark.parametrize("name", BY_BOTH)
def bench_quantize(versus, w: np.ndarray, name: str) -> None:
    peer_type = GGMLQuantizationType[name.upper()]
    ours, theirs = qr.quantize(w, name).data, quants.quantize(w, peer_type)
    assert (np.asarray(ours).reshape(-1) == theirs.reshape(-1).view(np.uint8)).all()
    versus(
        f"quantize {name}", lambda: qr.quantize(w, name), "gguf-py", lambda: quants.quantize(w, peer_type), wanted=12, rounds=3, note=NOTE
    )


@pytest.mark.parametrize("name", [*BY_BOTH, "q4_k", "q6_k", "iq4_xs"])
@pytest.mark.parametrize("into", ["new array", "out="])
def bench_dequantize(versus, w: np.ndarray, name: str, into: str) -> None:
    q, out = qr.quantize(w, name), np.zeros_like(w)
    raw, peer_type = np.asarray(q.data), GGMLQuantizationType[name.upper()]

    def ours() -> None:
        q.dequantize(out=out if into == "out=" else None)

    versus(
        f"dequantize {name}, {into}",
        ours,
        "gguf-py",
        lambda: quants.dequantize(raw, peer_type),
        wanted=10 if into == "out=" else 5,
        rounds=3,
        note=NOTE,
    )
