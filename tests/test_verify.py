"""verify finds what is wrong, and nothing where nothing is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import quantrs as qr
from conftest import GOLDEN, Ran
from gguf_bytes import gguf, llama, write_llama
from quantrs.verify import verify

TINY = GOLDEN / "ggml" / "tiny"


@pytest.mark.parametrize("path", sorted(TINY.glob("*.gguf")), ids=lambda p: p.name)
def test_files_of_other_tools_have_no_findings(path: Path) -> None:
    if path.name.startswith("split-") and "00001" not in path.name:
        pytest.skip("opened through the first file")
    assert verify(path).findings == ()


def test_what_quantize_writes_has_no_findings(tmp_path: Path, command: Callable[..., Ran]) -> None:
    source = write_llama(tmp_path / "s.gguf")
    for file_type in ("Q4_K_M", "Q2_K", "IQ4_XS", "Q8_0", "BF16", "TQ2_0"):
        qr.quantize_checkpoint(source, tmp_path / "o.gguf", scheme=file_type, force=True)
        assert verify(tmp_path / "o.gguf").findings == ()
    ran = command("verify", tmp_path / "o.gguf")
    assert (ran.code, "no findings" in ran.out) == (0, True)


@pytest.mark.parametrize("name", ["q4_k", "q8_0", "q6_k", "iq4_xs", "q2_k", "q5_1"])
def test_a_scale_that_is_not_finite_is_found_with_tensor_and_row(name: str, tmp_path: Path, command: Callable[..., Ran]) -> None:
    t = next(t for t in qr.types() if t.name == name)
    packed = qr.quantize(np.random.default_rng(0).standard_normal((4, 512), np.float32), name).data.copy()
    scale_at = 208 if name == "q6_k" else 80 if name == "q2_k" else 0
    packed[2, scale_at : scale_at + 2] = (0x00, 0x7C)
    path = tmp_path / "m.gguf"
    blob = gguf({"fine": np.ones(32, np.float32), "w": np.zeros((4, 512), np.float32)}, type_ids={"w": t.id})
    start = len(blob) - 4 * 512 * 4
    path.write_bytes(blob[:start] + packed.tobytes() + bytes(-packed.nbytes % 32))
    findings = verify(path).findings
    assert [f.where for f in findings] == ["w"]
    assert "row 2" in findings[0].what
    ran = command("verify", path, "--json")
    assert ran.code == 1
    assert json.loads(ran.out)["findings"][0]["where"] == "w"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_found(value: float, tmp_path: Path) -> None:
    tensors, metadata = llama()
    tensors["blk.0.attn_norm.weight"][17] = value
    tensors["blk.1.attn_v.weight"][3, 5] = value
    (tmp_path / "m.gguf").write_bytes(gguf(tensors, metadata))
    assert {f.where for f in verify(tmp_path / "m.gguf").findings} == {"blk.0.attn_norm.weight", "blk.1.attn_v.weight"}


def test_strings_that_are_not_utf8_are_found_and_do_not_disturb_the_rest(tmp_path: Path) -> None:
    tensors, metadata = llama()
    metadata |= {"general.name": b"\xff\xfe", "tokenizer.ggml.tokens": [b"a", b"\xc3", b"\xe4b", "ä"]}
    (tmp_path / "m.gguf").write_bytes(gguf(tensors, metadata))
    found = {f.where: f.what for f in verify(tmp_path / "m.gguf").findings}
    assert found.keys() == {"general.name", "tokenizer.ggml.tokens"}
    assert "element 1, 2 in all" in found["tokenizer.ggml.tokens"]


def test_an_unknown_type_is_found(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(gguf({"w": np.ones((2, 32), np.float32)}, type_ids={"w": 77}))
    findings = verify(tmp_path / "m.gguf").findings
    assert [(f.where, "77" in f.what) for f in findings] == [("w", True)]


def test_a_damaged_header_is_a_finding_and_an_absent_file_an_error(tmp_path: Path, command: Callable[..., Ran]) -> None:
    data = write_llama(tmp_path / "m.gguf").read_bytes()
    (tmp_path / "m.gguf").write_bytes(data[: len(data) // 2])
    ran = command("verify", tmp_path / "m.gguf")
    assert ran.code == 1
    assert "header" in ran.err
    assert "Traceback" not in ran.err
    with pytest.raises(qr.FileError):
        verify(tmp_path / "absent.gguf")


def test_a_checkpoint_folder_is_checked_too(tmp_path: Path, command: Callable[..., Ran]) -> None:
    shutil.copytree(GOLDEN / "hf" / "tiny-gpt2", tmp_path / "m")
    assert verify(tmp_path / "m").findings == ()
    path = tmp_path / "m" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-2:] = b"\xff\x7f"  # NaN in bfloat16
    path.write_bytes(data)
    ran = command("verify", tmp_path / "m")
    assert ran.code == 1
    assert "row" in ran.err
    path.write_bytes(data[: len(data) // 2])
    assert [f.where for f in verify(tmp_path / "m").findings] == ["header"]
