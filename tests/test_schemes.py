"""Names of file types and tensor types."""

import json
from pathlib import Path

import pytest

from quantrs import _native
from quantrs.errors import InputError, UsageError
from quantrs.schemes import FILE_TYPES, file_type, is_quantized, row_bytes, tensor_type, tensor_types, writable


def test_every_file_type_of_the_reference_is_known(golden: Path) -> None:
    models = json.loads((golden / "ggml" / "ftype_mix.json").read_text(encoding="utf-8"))["models"]
    wanted = set(next(iter(models.values()))["default"])
    assert wanted <= {row.name for row in FILE_TYPES}


@pytest.mark.parametrize("row", FILE_TYPES, ids=lambda row: row.name)
def test_a_file_type_is_found_by_name_in_any_case_and_by_id(row) -> None:
    assert file_type(row.name) is row
    assert file_type(row.name.lower()) is row
    if row.id is not None:
        assert file_type(str(row.id)) is row


def test_ids_of_file_types_are_distinct_and_ascend() -> None:
    ids = [row.id for row in FILE_TYPES if row.id is not None]
    assert ids == sorted(set(ids))


def test_default_types_are_tensor_types() -> None:
    assert {row.default_type for row in FILE_TYPES if row.default_type} <= set(tensor_types())


def test_short_k_names_mean_the_medium_mix() -> None:
    assert [file_type(name).name for name in ("Q3_K", "q4_k", "Q5_k")] == ["Q3_K_M", "Q4_K_M", "Q5_K_M"]


def test_id_0_means_f32_and_not_copy() -> None:
    assert file_type("0").name == "F32"


@pytest.mark.parametrize("text", ["Q9_Z", "", "4", "1024", "-1", "15x", "NVFP4", "q4_k_m_l"])
def test_an_unknown_file_type_is_a_usage_error_that_lists_the_known(text: str) -> None:
    with pytest.raises(UsageError, match=r"expected one of F32, F16, .*COPY"):
        file_type(text)


@pytest.mark.parametrize("text", ["q9_z", "Q8_1", "q8_k", "i8", "F64", "Q4_K_M"])
def test_a_type_that_no_tensor_can_become_is_a_usage_error_that_names_the_option(text: str) -> None:
    with pytest.raises(UsageError, match=r"--tensor-type x: .*expected one of F32, "):
        tensor_type(text, where="--tensor-type x")


def test_tensor_types_are_spelled_as_upstream_does() -> None:
    assert [tensor_type(name, where="") for name in ("q4_k", "bf16", "Iq4_nL", "iq2_xs")] == ["Q4_K", "BF16", "IQ4_NL", "IQ2_XS"]


def test_writable_are_the_registry_quantizers_but_for_the_activation_types() -> None:
    expected = {row.name for row in _native.block_formats() if row.can_quantize} - {"Q8_1", "Q8_K"} | {"F32"}
    assert {name for name in tensor_types() if writable(name)} == expected


def test_only_block_types_count_as_quantized() -> None:
    assert not any(is_quantized(name) for name in ("F32", "F16", "BF16", "I32", "F64"))
    assert all(is_quantized(name) for name in ("Q8_0", "Q4_K", "MXFP4", "IQ4_XS"))


def test_row_bytes_refuses_a_partial_block() -> None:
    assert row_bytes("Q4_K", 512) == 288
    with pytest.raises(InputError, match="300 values are not a multiple of 256"):
        row_bytes("Q4_K", 300)
