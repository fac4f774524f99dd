"""Bytes and decoded values equal ggml's: every type, every input group, with and without importance, at every CPU level."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import golden_ggml
import quantrs as qr
from conftest import GOLDEN, Ran

FOLDER = GOLDEN / "ggml"
THREADS = {"scalar": 1, "sse2": 2, "neon": 2, "avx2": 3, "avx512": 2}


@pytest.mark.parametrize("name", golden_ggml.golden_types(FOLDER))
def test_bytes_and_values_equal_ggml(name: str) -> None:
    assert not list(golden_ggml.differences(FOLDER, name))


def test_bytes_and_values_equal_ggml_at_level(level: str, python: Callable[..., Ran]) -> None:
    done = python(Path(golden_ggml.__file__), FOLDER, str(THREADS[level]), env={"QUANTRS_LEVEL": level})
    assert done.code == 0, done.err
    assert not done.out, done.out


def test_every_type_that_can_be_quantized_has_golden_bytes() -> None:
    assert {t.name for t in qr.types() if t.can_quantize} <= {x.lower() for x in golden_ggml.golden_types(FOLDER)} | {"f32"}


def test_registry_agrees_with_ggml_on_ids_and_block_sizes() -> None:
    from quantrs import _native

    rows = {f.name: f for f in _native.block_formats()}
    for name in golden_ggml.golden_types(FOLDER):
        with np.load(FOLDER / f"{name}.npz") as golden:
            want = tuple(int(golden[key]) for key in ("ggml_type", "block_size", "type_size"))
            assert (rows[name].id, rows[name].block_len, rows[name].block_bytes) == want, name


def test_registry_agrees_with_ggml_on_importance() -> None:
    from quantrs import _native

    for row in _native.block_formats():
        if row.can_quantize and row.name != "F32":
            with np.load(FOLDER / f"{row.name}.npz") as golden:
                want = "required" if golden["requires_imatrix"] else "ignored" if golden["ignores_imatrix"] else "used"
                assert row.importance == want, row.name


@pytest.mark.parametrize("name", [x for x in golden_ggml.golden_types(FOLDER) if not x.startswith("IQ")])
def test_rows_of_an_array_split_over_any_number_of_threads_give_the_same_bytes(name: str) -> None:
    row = next((t for t in qr.types() if t.name == name.lower()), None)
    if row is None or not row.can_quantize:
        pytest.skip(f"{name} has no quantizer")
    with np.load(FOLDER / "inputs.npz") as inputs:
        w = np.tile(inputs["student"], (40, 1))
    assert len({qr.quantize(w, name, threads=n).data.tobytes() for n in (1, 2, 3, 7)}) == 1
