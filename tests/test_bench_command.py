"""`quantrs bench`: its rows, its table, and how much of the weights decoding reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import quantrs as qr
from conftest import Ran
from family_models import MODELS
from quantrs import _native, model_bench
from quantrs.model_bench import bench_model, weight_bytes_per_token


def write(folder: Path, name: str = "llama") -> Path:
    path = folder / f"{name}.gguf"
    path.write_bytes(MODELS[name].to_bytes())
    return path


def bytes_of(name: str, *tensors: str) -> int:
    return sum(4 * int(np.prod(shape)) for key, shape in MODELS[name].shapes.items() if key in tensors or not tensors)


def test_rows_say_what_was_measured_and_how_fast(tmp_path: Path, command: Callable[..., Ran]) -> None:
    ran = command("bench", write(tmp_path), "-p", "8,16", "-n", "4,0", "-r", "3", "--threads", "1", "--json")
    assert (ran.code, ran.err) == (0, "")
    rows = json.loads(ran.out)
    assert [row["test"] for row in rows] == ["pp8", "pp16", "tg4"]
    for row in rows:
        assert len(row["samples"]) == 3
        assert row["tokens_per_second"] == pytest.approx(np.mean(row["samples"]))
        assert row["std_dev"] == pytest.approx(np.std(row["samples"], ddof=1))
        assert (row["threads"], row["level"], row["file_bytes"]) == (1, _native.level(), (tmp_path / "llama.gguf").stat().st_size)
    assert [row["weight_bytes_per_token"] is None for row in rows] == [True, True, False]
    tg = rows[2]
    assert tg["bandwidth_fraction"] == pytest.approx(tg["weight_bytes_per_token"] * tg["tokens_per_second"] / tg["read_bandwidth"])
    assert 1e8 < tg["read_bandwidth"] < 1e13


def test_the_table_has_a_line_per_test_in_the_usual_shape(tmp_path: Path, command: Callable[..., Ran]) -> None:
    out = command("bench", write(tmp_path), "-p", "8", "-n", "2", "-r", "2").out
    header, rule, pp, tg, blank, memory, reads = out.splitlines()
    assert [cell.strip() for cell in header.split("|")[1:-1]] == ["model", "size", "params", "threads", "test", "t/s"]
    assert set(rule) == set("|-: ")
    assert len({len(line) for line in (header, rule, pp, tg)}) == 1
    assert [line.split("|")[5].strip() for line in (pp, tg)] == ["pp8", "tg2"]
    assert "±" in pp
    assert "GB/s" in memory
    assert reads.startswith("tg2 reads 0.")
    assert blank == ""


def test_a_test_may_begin_after_other_tokens(tmp_path: Path) -> None:
    found = bench_model(str(write(tmp_path)), n_prompts=(4,), n_gens=(2,), depths=(0, 32), repetitions=1, threads=1)
    assert [row.test for row in found.rows] == ["pp4", "pp4 @ d32", "tg2", "tg2 @ d32"]
    assert [row.std_dev for row in found.rows] == [0, 0, 0, 0]


def test_prompts_alone_measure_no_bandwidth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(model_bench._native, "read_bandwidth")
    found = bench_model(str(write(tmp_path)), n_prompts=(4,), n_gens=(0,), repetitions=1)
    assert found.read_bandwidth is None
    assert "GB/s" not in str(found)


def test_a_token_reads_every_weight_but_unused_rows_and_experts(tmp_path: Path) -> None:
    def read(name: str) -> int:
        return weight_bytes_per_token(_native.Gguf.open(write(tmp_path, name)))

    row = bytes_of("llama", "token_embd.weight") // 96
    assert read("llama") == bytes_of("llama") - bytes_of("llama", "token_embd.weight") + row
    assert read("qwen3") == bytes_of("qwen3")  # the embeddings are the output matrix
    experts = bytes_of("mixtral", *(key for key in MODELS["mixtral"].shapes if "_exps" in key))
    assert read("mixtral") == bytes_of("mixtral") - bytes_of("mixtral", "token_embd.weight") + row - experts // 2  # 2 of 4


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("-p", "0", "-n", "0"), 2, "nothing to measure"),
        (("-p", "a"), 2, "found 'a'"),
        (("-n", "1,"), 2, "found ''"),
        (("-r", "0"), 2, "a number of 1 or more"),
        (("--threads", "0"), 2, "a number of 1 or more"),
        (("--kv-type", "q8_0", "-p", "4"), 1, "16 values"),
    ],
)
def test_wrong_numbers_are_refused(args: tuple[str, ...], code: int, words: str, tmp_path: Path, command: Callable[..., Ran]) -> None:
    ran = command("bench", write(tmp_path), *args)
    assert (ran.code, ran.out) == (code, "")
    assert words in ran.err


def test_the_library_refuses_numbers_out_of_range(tmp_path: Path) -> None:
    path = str(write(tmp_path))
    with pytest.raises(qr.InputError, match="repetitions: found 0"):
        bench_model(path, repetitions=0)
    with pytest.raises(qr.InputError, match="found -3 tokens"):
        bench_model(path, n_prompts=(-3,))
