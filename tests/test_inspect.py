"""inspect shows what the header holds, to people and to machines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conftest import GOLDEN, Ran
from gguf_bytes import gguf, write_llama
from huggingface_folders import HF

TINY = GOLDEN / "ggml" / "tiny"


def test_json_holds_header_metadata_and_tensors(tmp_path: Path, command: Callable[..., Ran]) -> None:
    path = write_llama(tmp_path / "m.gguf")
    value = json.loads(command("inspect", path, "--json").out)
    assert (value["version"], value["alignment"], value["file_bytes"]) == (3, 32, path.stat().st_size)
    assert value["metadata"]["llama.block_count"] == 2
    assert value["metadata"]["tokenizer.ggml.tokens"][:2] == ["t0", "t1"]
    row = next(t for t in value["tensors"] if t["name"] == "blk.0.ffn_down.weight")
    assert (row["shape"], row["type"], row["bytes"]) == ([256, 512], "F16", 256 * 512 * 2)
    assert value["tensor_bytes"] == sum(t["bytes"] for t in value["tensors"])
    assert value["bits_per_weight"] == pytest.approx(16, abs=0.1)


def test_long_arrays_are_shortened_unless_all_is_asked_for(tmp_path: Path, command: Callable[..., Ran]) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf({}, {"a.tokens": [f"t{i}" for i in range(1000)]}))
    short = json.loads(command("inspect", path, "--json").out)["metadata"]["a.tokens"]
    assert short == {"type": "array[string]", "length": 1000, "head": [f"t{i}" for i in range(8)]}
    assert len(json.loads(command("inspect", path, "--json", "--all").out)["metadata"]["a.tokens"]) == 1000
    assert "1000 elements" in command("inspect", path).out
    assert "t999" in command("inspect", path, "--all").out


def test_floats_that_json_lacks_become_texts(tmp_path: Path, command: Callable[..., Ran]) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf({}, {"a": ("f32", float("nan")), "b": ("f64", float("-inf")), "c": ("f32", float("inf"))}))
    assert {"a": "NaN", "b": "-Infinity", "c": "Infinity"}.items() <= json.loads(command("inspect", path, "--json").out)["metadata"].items()


def test_names_cannot_play_tricks_with_the_terminal(tmp_path: Path, command: Callable[..., Ran]) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf({"w\x1b[2J": np.ones(4, np.float32)}, {"general.name": b"\x1b]0;x\x07 \xff \xc2\x9b", "k\n": "v\r\n"}))
    ran = command("inspect", path)
    assert ran.code == 0
    assert not set(ran.out + ran.err) & {"\x1b", "\x07", "\r", "\x9b"}
    assert "\\xff" in ran.out


def test_the_text_names_every_tensor_and_sums_up(command: Callable[..., Ran]) -> None:
    ran = command("inspect", TINY / "tiny-Q4_K_M.gguf")
    assert "blk.0.attn_q.weight" in ran.out
    assert "bits per weight" in ran.out.splitlines()[-1]
    assert ran.err == ""


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    import subprocess
    import sys

    path = tmp_path / "m.gguf"
    path.write_bytes(gguf({}, {"a.tokens": [f"t{i}" for i in range(200_000)]}))
    process = subprocess.Popen([sys.executable, "-m", "quantrs", "inspect", path, "--all"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.wait(timeout=20)
    process.stderr.close()


def test_a_folder_is_called_one(command: Callable[..., Ran]) -> None:
    ran = command("inspect", HF / "tiny-llama3-rope")
    assert ran.code == 0
    assert ran.out.splitlines()[1].startswith("checkpoint folder, told in the terms of GGUF, ")
