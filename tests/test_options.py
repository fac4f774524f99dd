"""The texts of options: what is accepted, and what the errors say."""

from pathlib import Path

import pytest

from quantrs.errors import FileError, UsageError
from quantrs.options import KvOverride, QuantizeOptions, parse_kv_override, parse_prune_layers, parse_tensor_type, read_tensor_type_file


@pytest.mark.parametrize(
    ("text", "value", "value_type"),
    [
        ("k=int:77", 77, "u32"),
        ("k=int:-5", 5, "u32"),
        ("k=float:1.5", 1.5, "f32"),
        ("k=bool:true", True, "bool"),
        ("k=bool:false", False, "bool"),
        ("k=str:a=b:c", "a=b:c", "string"),
        ("k=str:", "", "string"),
    ],
)
def test_kv_override_is_read(text: str, value: object, value_type: str) -> None:
    assert parse_kv_override(text) == KvOverride("k", value, value_type)


@pytest.mark.parametrize(
    "text",
    ["k", "k=", "k=5", "=int:5", "k=int:", "k=int:five", "k=int:1.5", "k=int:4294967296", "k=float:x", "k=float:nan", "k=float:1e39",
     "k=bool:yes", "k=char:a", f"k=str:{'x' * 128}", f"{'k' * 128}=int:1"],
)  # fmt: skip
def test_a_malformed_kv_override_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="--override-kv"):
        parse_kv_override(text)


def test_tensor_type_patterns_are_lower_cased_and_types_are_not() -> None:
    assert parse_tensor_type(r"BLK\.[0-3]\.Attn=Q6_K=") == (r"blk\.[0-3]\.attn", "Q6_K=")


@pytest.mark.parametrize("text", ["attn_v", "=q6_k", "attn_v="])
def test_a_malformed_tensor_type_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="expected PATTERN=TYPE"):
        parse_tensor_type(text)


def test_tensor_type_file_holds_entries_between_spaces_and_lines(tmp_path: Path) -> None:
    path = tmp_path / "types.txt"
    path.write_text("attn_q=q8_0\n  ffn_up=f16 ffn_down=q5_k\n\n")
    assert read_tensor_type_file(path) == (("attn_q", "q8_0"), ("ffn_up", "f16"), ("ffn_down", "q5_k"))


def test_tensor_type_file_errors_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text("attn_q")
    with pytest.raises(UsageError, match=r"bad\.txt: found 'attn_q'"):
        read_tensor_type_file(tmp_path / "bad.txt")
    with pytest.raises(FileError, match=r"cannot read .*absent\.txt"):
        read_tensor_type_file(tmp_path / "absent.txt")


def test_prune_layers_are_sorted_and_unique() -> None:
    assert parse_prune_layers("11,3, 7,3") == (3, 7, 11)


@pytest.mark.parametrize("text", ["", "a", "1,,2", "-1", "1.5", "³"])
def test_malformed_prune_layers_are_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="--prune-layers"):
        parse_prune_layers(text)


def test_include_and_exclude_weights_cannot_be_combined() -> None:
    with pytest.raises(UsageError, match="cannot be used together"):
        QuantizeOptions(to="Q4_0", imatrix="x", include_weights=("a",), exclude_weights=("b",))


def test_include_weights_without_an_imatrix_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="add --imatrix"):
        QuantizeOptions(to="Q4_0", include_weights=("a",))
