"""Opening models lazily."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import quantrs as qr
from conftest import GOLDEN
from gguf_bytes import gguf, write_llama

TINY = GOLDEN / "ggml" / "tiny"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_llama(tmp_path / "small.gguf")


def test_metadata_is_a_mapping_in_file_order(small: Path) -> None:
    with qr.open(small) as model:
        assert list(model.metadata)[:3] == ["general.architecture", "general.name", "general.file_type"]
        assert model.metadata["llama.block_count"] == 2
        assert model.metadata["tokenizer.ggml.tokens"][:2] == ["t0", "t1"]  # type: ignore[index]
        assert "general.name" in model.metadata
        assert "nonesuch" not in model.metadata
        assert len(model.metadata) == len(list(model.metadata))
        with pytest.raises(KeyError):
            model.metadata["nonesuch"]


def test_tensors_have_numpy_shapes_and_lower_case_types(small: Path) -> None:
    with qr.open(small) as model:
        tensor = model.tensors["blk.1.ffn_up.weight"]
        assert (tensor.name, tensor.shape, tensor.type, tensor.nbytes) == ("blk.1.ffn_up.weight", (512, 256), "f16", 512 * 256 * 2)
        assert tensor.data.shape == (512, 512)
        assert tensor.data.dtype == np.uint8
        assert len(model.tensors) == len(list(model.tensors)) == 21


def test_values_are_those_that_were_stored(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    stored = {
        "half": rng.standard_normal((2, 3, 64)).astype(np.float16),
        "single": rng.standard_normal((5,)).astype(np.float32),
        "bytes": np.arange(-4, 4, dtype=np.int8),
        "ints": np.arange(6, dtype=np.int32).reshape(2, 3),
    }
    (tmp_path / "m.gguf").write_bytes(gguf(stored))
    with qr.open(tmp_path / "m.gguf") as model:
        for name, want in stored.items():
            assert np.array_equal(model.tensors[name].dequantize(), want.astype(np.float32)), name
            assert model.tensors[name].data.tobytes() == want.tobytes()


def test_a_quantized_tensor_comes_packed_or_unpacked() -> None:
    with qr.open(TINY / "tiny-Q4_K_M.gguf") as model, qr.open(TINY / "tiny-f16.gguf") as source:
        name = next(n for n, t in model.tensors.items() if t.type == "q4_k")
        q = model.tensors[name].quantized()
        assert q.type == "q4_k"
        assert np.array_equal(q.dequantize(), model.tensors[name].dequantize())
        assert q.error(source.tensors[name].dequantize()).relative < 0.1


def test_the_first_file_of_a_split_model_opens_all_of_it() -> None:
    with qr.open(TINY / "split-00001-of-00003.gguf") as model:
        assert len(model.files) == 3
        assert len({tensor.dequantize().size for tensor in model.tensors.values()}) >= 1
        assert len(model.tensors) == model.metadata["split.tensors.count"]


def test_a_closed_checkpoint_reads_nothing_more(small: Path) -> None:
    model = qr.open(small)
    tensor = model.tensors["output.weight"]
    model.close()
    model.close()
    assert tensor.shape == (64, 256)
    with pytest.raises(qr.InputError, match="closed"):
        tensor.dequantize()


def test_a_tensor_of_an_unknown_type_gives_its_bytes_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf({"w": np.ones((2, 32), np.float32)}, type_ids={"w": 77}))
    with qr.open(path) as model:
        assert model.tensors["w"].type == "unknown (id 77)"
        assert model.tensors["w"].data.nbytes == 256
        assert any("77" in text for text in model.notices)
        with pytest.raises(qr.InputError, match="77"):
            model.tensors["w"].dequantize()


def test_an_absent_and_a_foreign_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(qr.FileError, match=r"absent\.gguf"):
        qr.open(tmp_path / "absent.gguf")
    (tmp_path / "text.gguf").write_text("hello, this is not a model at all")
    with pytest.raises(qr.FormatError, match=r"text\.gguf"):
        qr.open(tmp_path / "text.gguf")


def test_errors_are_also_what_python_calls_them(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="absent"):
        qr.open(tmp_path / "absent.gguf")
    assert issubclass(qr.FormatError, ValueError)
    assert issubclass(qr.UsageError, qr.InputError)
    assert issubclass(qr.InputError, ValueError)
