"""Sizes: round bit counts from a parameter count, exact bytes from a file."""

import json
from pathlib import Path

import pytest

from quantize_cases import write_models
from quantrs.errors import FileError, UsageError
from quantrs.schemes import FILE_TYPES, tensor_types
from quantrs.size_text import size_text
from quantrs.sizing import ModelSizes, ParameterSizes, parameter_count, size, size_of_model, size_of_parameters

HEADERS = json.loads((Path(__file__).parent / "golden" / "llama_quantize" / "headers.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("70B", 70 * 10**9),
        ("1.5b", 1_500_000_000),
        ("135M", 135 * 10**6),
        ("7e9", 7 * 10**9),
        ("500k", 500_000),
        ("1T", 10**12),
        ("42", 42),
    ],
)
def test_parameter_counts_are_read(text: str, count: int) -> None:
    assert parameter_count(text) == count


@pytest.mark.parametrize("text", ["", "B", "7BB", "0", "0B", "-7B", "7e99", "seven", "1e400"])
def test_other_texts_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError, match="expected a parameter count such as 70B"):
        parameter_count(text)


def test_seventy_billion_parameters_have_the_known_sizes() -> None:
    rows = {row.bits: row.weights_gb for row in size_of_parameters(70 * 10**9).bits}
    assert rows == {32: 280, 16: 140, 8: 70, 4: 35, 3: 26.25, 2: 17.5}


def test_types_have_their_real_bits_per_weight() -> None:
    rows = {row.name: row for row in size_of_parameters(8 * 10**9).types}
    assert (rows["Q4_K"].bits_per_weight, rows["Q4_K"].weights_gb) == (4.5, 4.5)
    assert (rows["Q6_K"].bits_per_weight, rows["Q8_0"].bits_per_weight, rows["F16"].bits_per_weight) == (6.5625, 8.5, 16)
    assert set(rows) == set(tensor_types()) - {"Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64"}


@pytest.mark.parametrize("source", ["plain.gguf", "odd.gguf", "experts.gguf"])
def test_model_sizes_equal_the_files_that_the_reference_writes(source: str, tmp_path: Path) -> None:
    write_models(tmp_path)
    rows = {row.name: row.weights_bytes for row in size_of_model(tmp_path / source).types}
    assert set(rows) == {row.name for row in FILE_TYPES} - {"COPY"}
    compared = 0
    for case in HEADERS:
        if case["source"] == source and set(case["options"]) == {"to"} and case["options"]["to"] in rows:
            assert rows[case["options"]["to"]] == case["files"]["out.gguf"][0], case["options"]["to"]
            compared += 1
    assert compared >= 23


def test_a_file_type_that_is_not_possible_has_no_size_and_says_why(tmp_path: Path) -> None:
    write_models(tmp_path)
    row = next(row for row in size_of_model(tmp_path / "odd.gguf").types if row.name == "Q1_0")
    assert row.weights_bytes is None
    assert "rows of 288 values" in row.note


def test_the_table_tells_what_is_missing_in_a_few_words(tmp_path: Path) -> None:
    write_models(tmp_path)
    lines = {line.split()[0]: line for line in size_text(size_of_model(tmp_path / "plain.gguf")).split("\n") if line}
    assert lines["IQ2_XS"].endswith("  not written by quantrs")
    assert lines["Q2_K_S"].endswith("  needs --imatrix")
    assert max(map(len, lines.values())) < 120


def test_a_quantized_source_is_sized_too() -> None:
    sizes = size_of_model(Path(__file__).parent / "golden" / "ggml" / "tiny" / "tiny-Q4_K_M.gguf")
    assert all(row.weights_bytes for row in sizes.types)
    assert next(row for row in sizes.types if row.name == "Q4_K_M").weights_bytes == sizes.source_bytes


def test_the_argument_may_be_a_file_or_a_count(tmp_path: Path) -> None:
    write_models(tmp_path)
    assert isinstance(size(str(tmp_path / "plain.gguf")), ModelSizes)
    assert isinstance(size("7B"), ParameterSizes)
    with pytest.raises(FileError, match=r"absent\.gguf"):
        size(str(tmp_path / "absent.gguf"))
    with pytest.raises(UsageError, match=r"expected a model, its config\.json, or a parameter count"):
        size("large" * 100)


def test_sizes_are_json_values(tmp_path: Path) -> None:
    write_models(tmp_path)
    for what in ("70B", str(tmp_path / "plain.gguf")):
        value = json.loads(json.dumps(size(what).to_json(), allow_nan=False))
        assert value["types"]
