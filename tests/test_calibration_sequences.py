"""Calibration data from texts, JSON lines and arrays."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from quantrs import _native
from quantrs.calibration.options import CalibrationOptions
from quantrs.calibration.sequences import read_sequences
from quantrs.errors import FileError, FormatError, InputError, QuantrsError, UsageError
from speaking_model import write_speaker

LENGTH = 16


@pytest.fixture
def model(tmp_path: Path) -> _native.Gguf:
    return _native.Gguf.open(write_speaker(tmp_path / "model.gguf", "ab"))


def read(model: _native.Gguf, path: Path, *, length: int = LENGTH, at_most: int | None = None, **options: int) -> np.ndarray:
    return read_sequences(CalibrationOptions(text=str(path), length=length, **options), model, at_most=at_most)


def text_file(tmp_path: Path, content: str | bytes, name: str = "text.txt") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def array_file(tmp_path: Path, ids: np.ndarray) -> Path:
    np.save(tmp_path / "ids.npy", ids)
    return tmp_path / "ids.npy"


def test_a_text_is_cut_as_evaluation_cuts_it(model: _native.Gguf, tmp_path: Path) -> None:
    from quantrs.tokenization import Tokenizer

    text = "abc def " * 40
    tokenizer = Tokenizer.of_gguf(model)
    begin = [tokenizer.bos_id] if tokenizer.add_bos else []
    ids = [*begin, *tokenizer.encode(text, add_special=False, parse_special=False)]
    got = read(model, text_file(tmp_path, text + "\n"))
    want = np.array(ids[: len(ids) // LENGTH * LENGTH]).reshape(-1, LENGTH)
    if begin:
        want[:, 0] = begin[0]
    assert got.dtype == np.int32
    assert np.array_equal(got, want)


def test_sequences_are_chosen_from_all_over_the_text(model: _native.Gguf, tmp_path: Path) -> None:
    ids = np.repeat(np.arange(20, dtype=np.int64), LENGTH)
    path = array_file(tmp_path, ids)
    got = read(model, path, sequences=5)[:, 0]
    assert [int(i) // 4 for i in got] == [0, 1, 2, 3, 4]
    assert np.array_equal(got, read(model, path, sequences=5)[:, 0])
    assert any(not np.array_equal(got, read(model, path, sequences=5, seed=seed)[:, 0]) for seed in (1, 2, 3))
    assert read(model, path, at_most=7).shape == (7, LENGTH)
    assert read(model, path, at_most=70).shape == (20, LENGTH)


def test_rows_of_an_array_are_sequences(model: _native.Gguf, tmp_path: Path) -> None:
    ids = np.arange(60, dtype=np.uint8).reshape(3, 20)
    assert np.array_equal(read(model, array_file(tmp_path, ids)), ids[:, :LENGTH])
    np.savez(tmp_path / "ids.npz", other=np.zeros(3), input_ids=ids)
    assert np.array_equal(read(model, tmp_path / "ids.npz"), ids[:, :LENGTH])


def test_json_lines_hold_texts_and_conversations(model: _native.Gguf, tmp_path: Path) -> None:
    lines = [{"text": "abc def " * 20}, {"messages": [{"role": "user", "content": "abc " * 20}]}]
    path = text_file(tmp_path, "\n".join(map(json.dumps, lines)) + "\n\n", "data.jsonl")
    assert len(read(model, path)) > len(read(model, text_file(tmp_path, json.dumps(lines[0]), "one.jsonl")))


def test_the_text_of_the_package_suits_every_tokenizer(model: _native.Gguf) -> None:
    assert len(read_sequences(CalibrationOptions(length=512), model)) >= 8


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("text.txt", "", InputError, "has no text"),
        ("text.txt", "ab", InputError, "tokens, expected at least the 16 of one sequence"),
        ("text.txt", b"ab\xff", FormatError, "byte 2 is not UTF-8"),
        ("data.jsonl", "{", FormatError, "line 1 is not JSON"),
        ("data.jsonl", '{"text": "a"}\n{"body": "a"}', FormatError, "line 2 has neither 'text' nor 'messages'"),
        ("data.jsonl", '{"messages": "a"}', FormatError, "line 1: 'messages' is no list"),
        ("ids.npy", "not numpy", FormatError, "is no NumPy file"),
    ],
)
def test_bad_files_are_refused(
    name: str, content: str | bytes, error: type[QuantrsError], message: str, model: _native.Gguf, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        read(model, text_file(tmp_path, content, name))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.full(40, 2**31), "token 0 is 2147483648, expected an id of 0 to"),
        (np.array([1] * 20 + [-1] * 20), "token 20 is -1"),
        (np.zeros(40, np.float32), "found float32"),
        (np.zeros((2, 2, 2), np.int32), r"found int32 \(2, 2, 2\)"),
        (np.zeros((4, 5), np.int32), "rows of 5 tokens, expected at least the 16"),
    ],
)
def test_bad_arrays_are_refused(ids: np.ndarray, message: str, model: _native.Gguf, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read(model, array_file(tmp_path, ids))


def test_too_few_sequences_are_counted(model: _native.Gguf, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has 2 sequences of 16 tokens, expected 3: 48 tokens"):
        read(model, array_file(tmp_path, np.zeros(40, np.int32)), sequences=3)


def test_a_file_that_is_not_there_is_named(model: _native.Gguf, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"absent\.txt"):
        read(model, tmp_path / "absent.txt")


@pytest.mark.parametrize("options", [{"length": 4}, {"sequences": 0}, {"min_coverage": 1.5}])
def test_options_out_of_range_are_wrong_usage(options: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        CalibrationOptions(**options)  # type: ignore[arg-type]
