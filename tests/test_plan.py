"""The planned file against what llama-quantize writes, and what a plan refuses."""

import hashlib
import json
import struct
from pathlib import Path

import pytest

from quantize_cases import Shapes, llama_metadata, llama_shapes, write_hole, write_models, write_split
from quantrs._native import Gguf
from quantrs.errors import FileError, InputError, UsageError
from quantrs.options import QuantizeOptions
from quantrs.plan import Plan

GOLDEN = Path(__file__).parent / "golden"
TINY = GOLDEN / "ggml" / "tiny"
HEADERS = json.loads((GOLDEN / "llama_quantize" / "headers.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


def _options(row: dict) -> QuantizeOptions:
    def frozen(value: object) -> object:
        return tuple(frozen(item) for item in value) if isinstance(value, list) else value

    return QuantizeOptions(**{key: frozen(value) for key, value in row["options"].items()})


def _plan(path: Path, destination: str | None = None, **options) -> Plan:
    return Plan.for_gguf(Gguf.open(path), QuantizeOptions(**{"to": "Q4_K_M", **options}), destination)


def _small(tmp_path: Path, shapes: Shapes | None = None, metadata: dict[str, object] | None = None) -> Path:
    return write_hole(
        tmp_path / "m.gguf", llama_shapes(2) if shapes is None else shapes, llama_metadata(2) if metadata is None else metadata
    )


@pytest.mark.parametrize("row", HEADERS, ids=lambda row: f"{row['source'][:-5]}-{'-'.join(map(str, row['options'].values()))}"[:80])
def test_planned_files_equal_the_reference(row: dict, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(models)
    plan = Plan.for_gguf(Gguf.open(row["source"]), _options(row), "out.gguf")
    planned = {file.path: [file.file_bytes, hashlib.sha256(file.header).hexdigest()] for file in plan.files}
    assert planned == row["files"]


@pytest.mark.parametrize(
    ("name", "imatrix"), [("Q4_K_M", None), ("Q3_K_S-imat", "tiny.imatrix.gguf"), ("IQ2_XXS-imat", "tiny.imatrix.dat")]
)
def test_planned_header_and_size_equal_the_tiny_files(name: str, imatrix: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(TINY)
    plan = _plan(Path("tiny-f16.gguf"), to=name.removesuffix("-imat"), imatrix=imatrix)
    written = Path(f"tiny-{name}.gguf").read_bytes()
    assert plan.files[0].header == written[: len(plan.files[0].header)]
    assert plan.file_bytes == len(written)


def test_tensors_follow_each_other_at_aligned_offsets_up_to_the_end_of_the_file(tmp_path: Path) -> None:
    plan = _plan(_small(tmp_path))
    end = len(plan.files[0].header)
    for tensor in plan.tensors:
        assert tensor.offset == end, tensor.name
        end += -(-tensor.nbytes // 32) * 32
    assert end == plan.file_bytes


@pytest.mark.parametrize("alignment", [8, 32, 64, 256])
def test_alignment_is_written_as_the_key_says(alignment: int, tmp_path: Path) -> None:
    metadata = llama_metadata(2, hidden=96) | {"general.alignment": alignment}
    plan = _plan(_small(tmp_path, llama_shapes(2, hidden=96), metadata), to="Q4_0")
    assert len(plan.files[0].header) % alignment == 0
    assert all(tensor.offset % alignment == 0 for tensor in plan.tensors)
    assert plan.file_bytes % alignment == 0


def test_strings_keep_nul_bytes(tmp_path: Path) -> None:
    plan = _plan(_small(tmp_path, metadata=llama_metadata(2) | {"general.description": b"a\0b"}))
    assert b"a\0b" in plan.files[0].header


def test_a_version_2_source_gives_a_version_3_file_with_the_same_metadata(tmp_path: Path) -> None:
    path = _small(tmp_path)
    expected = _plan(path).files[0].header
    data = bytearray(path.read_bytes())
    data[4:8] = struct.pack("<I", 2)
    path.write_bytes(data)
    assert _plan(path).files[0].header == expected


def test_trailing_dimensions_of_one_are_dropped(tmp_path: Path) -> None:
    plan = _plan(_small(tmp_path, llama_shapes(1) | {"blk.0.x.weight": ("F16", (1, 1, 256)), "blk.0.y.weight": ("F16", (1, 4, 256))}))
    rows = {tensor.name: (tensor.dims, tensor.why) for tensor in plan.tensors}
    assert rows["blk.0.x.weight"] == ((256,), "kept: one dimension")
    assert rows["blk.0.y.weight"][0] == (256, 4)


def test_requantizing_is_refused_by_tensor_and_option() -> None:
    plan = _plan(TINY / "tiny-Q4_K_M.gguf", to="Q8_0")
    with pytest.raises(InputError, match=r"output\.weight and 8 more would be quantized a second time \(found Q6_K\).*--allow-requantize"):
        plan.check()
    _plan(TINY / "tiny-Q4_K_M.gguf", to="Q8_0", allow_requantize=True).check()


def test_tensors_that_have_their_type_already_are_copied_without_leave() -> None:
    plan = _plan(TINY / "tiny-Q4_K_M.gguf")
    plan.check()
    assert all(tensor.copied for tensor in plan.tensors)
    assert {tensor.why for tensor in plan.tensors if tensor.target_type == "Q4_K"} == {"copied: already Q4_K"}


def test_types_that_are_not_yet_written_are_planned_and_refused() -> None:
    plan = _plan(TINY / "tiny-f16.gguf", to="IQ3_S")
    assert "IQ3_S" in {tensor.target_type for tensor in plan.tensors}
    with pytest.raises(InputError, match="IQ1, IQ2 and IQ3 are not yet written"):
        plan.check()


def test_a_file_type_that_demands_an_imatrix_is_planned_and_refused_without() -> None:
    plan = _plan(TINY / "tiny-f16.gguf", to="Q2_K_S")
    with pytest.raises(InputError, match=r"blk\.0\.attn_k\.weight becomes Q2_K .*--imatrix FILE"):
        plan.check()
    _plan(TINY / "tiny-f16.gguf", to="Q2_K_S", imatrix=str(TINY / "tiny.imatrix.dat")).check()


def test_an_imatrix_of_another_model_is_refused_by_tensor_and_lengths(models: Path) -> None:
    plan = _plan(models / "odd.gguf", to="Q8_0", imatrix=str(models / "deep.imatrix.gguf"))
    with pytest.raises(InputError, match=r"blk\.0\.attn_k\.weight: the importance matrix has 256 values, expected 288"):
        plan.check()


def test_token_embeddings_of_another_length_are_quantized_without_imatrix(models: Path) -> None:
    plan = _plan(models / "odd.gguf", to="Q8_0", imatrix=str(models / "deep.imatrix.gguf"), include_weights=("token_embd",))
    plan.check()
    assert any("token_embd.weight: the importance matrix has 256 values" in notice for notice in plan.notices)
    assert [tensor.imatrix_name for tensor in plan.tensors if tensor.name == "token_embd.weight"] == [None]


def test_a_pruned_model_uses_the_importance_of_the_original_layers(models: Path) -> None:
    plan = _plan(models / "deep.gguf", prune_layers=(2, 5), imatrix=str(models / "deep.imatrix.gguf"))
    entries = {tensor.name: tensor.imatrix_name for tensor in plan.tensors}
    assert entries["blk.1.attn_q.weight"] == "blk.1.attn_q.weight"
    assert entries["blk.2.attn_q.weight"] == "blk.3.attn_q.weight"
    assert entries["blk.5.attn_q.weight"] == "blk.7.attn_q.weight"


def test_a_tensor_of_an_unknown_type_is_refused(tmp_path: Path) -> None:
    path = _small(tmp_path, {"blk.0.x.weight": ("F16", (4, 256))})
    data = path.read_bytes()
    type_at = data.index(b"blk.0.x.weight") + len("blk.0.x.weight") + 4 + 16
    path.write_bytes(data[:type_at] + struct.pack("<I", 99) + data[type_at + 4 :])
    with pytest.raises(InputError, match=r"blk\.0\.x\.weight has ggml type id 99"):
        _plan(path)


def test_integers_in_a_matrix_to_be_quantized_are_refused(tmp_path: Path) -> None:
    path = _small(tmp_path, {"blk.0.x.weight": ("F32", (4, 256))})
    data = path.read_bytes()
    type_at = data.index(b"blk.0.x.weight") + len("blk.0.x.weight") + 4 + 16
    path.write_bytes(data[:type_at] + struct.pack("<I", 26) + data[type_at + 4 :])
    with pytest.raises(InputError, match=r"blk\.0\.x\.weight: cannot convert from I32"):
        _plan(path).check()


@pytest.mark.parametrize(
    ("layers", "message"),
    [((1, 9), "has no layer 9; its layers are 0 to 1"), ((0, 1), "no layer would be left"), ((-1,), "numbers from 0 up")],
)
def test_impossible_pruning_is_refused(tmp_path: Path, layers: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _plan(_small(tmp_path), prune_layers=layers)


def test_a_split_file_that_would_be_empty_is_refused(tmp_path: Path) -> None:
    write_split(tmp_path, "m", llama_shapes(3), llama_metadata(3), (12, 9))  # the second file holds layer 1
    with pytest.raises(InputError, match=r"--keep-split: no tensor of .*m-00002-of-00003\.gguf is left"):
        _plan(tmp_path / "m-00001-of-00003.gguf", prune_layers=(1,), keep_split=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "Q9_Z"}, "unknown file type 'Q9_Z'"),
        ({"output_tensor_type": "q9_z"}, "--output-tensor-type: unknown tensor type 'q9_z'"),
        ({"token_embedding_type": "i8"}, "--token-embedding-type: not a type to quantize to"),
        ({"tensor_types": (("attn_v", "q9_z"),)}, "--tensor-type attn_v: unknown tensor type 'q9_z'"),
        ({"tensor_types": (("(", "q8_0"),)}, "is not a regular expression"),
        ({"override_kv": ("nonsense",)}, "--override-kv: found 'nonsense'"),
    ],
)
def test_options_that_make_no_sense_are_usage_errors(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        _plan(_small(tmp_path), **options)
    assert message in str(caught.value)


def test_an_absent_imatrix_is_a_file_error(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"absent\.dat"):
        _plan(_small(tmp_path), imatrix=str(tmp_path / "absent.dat"))


def test_notices_tell_of_fallbacks_useless_patterns_and_a_missing_architecture(tmp_path: Path, models: Path) -> None:
    metadata = {key: value for key, value in llama_metadata(2).items() if key != "general.architecture"}
    notices = _plan(_small(tmp_path, metadata=metadata), tensor_types=(("atn_v", "q8_0"),)).notices
    assert any("'atn_v' decides on no tensor" in notice for notice in notices)
    assert any("general.architecture is missing" in notice for notice in notices)
    assert any("a fallback type is used for" in notice for notice in _plan(models / "odd.gguf").notices)
    assert any(
        "--tensor-type has no effect with --to F16" in notice
        for notice in _plan(models / "deep.gguf", to="F16", tensor_types=(("a", "q8_0"),)).notices
    )


def test_json_has_a_row_per_tensor_and_the_totals(tmp_path: Path) -> None:
    plan = _plan(_small(tmp_path))
    value = json.loads(json.dumps(plan.to_json()))
    assert value["file_bytes"] == plan.file_bytes
    assert len(value["tensors"]) == len(plan.tensors)
    assert value["tensors"][0] == {
        "name": "output.weight",
        "shape": [64, 256],
        "from": "F16",
        "to": "Q6_K",
        "why": "rule: output of Q4_K_M",
        "bytes": 64 * 210,
    }


def test_planning_needs_neither_numpy_nor_the_command_line(python) -> None:
    code = "import sys, quantrs.plan, quantrs.sizing, quantrs.recipe; print(sorted({'numpy', 'rich', 'typer'} & set(sys.modules)))"
    assert python("-c", code).out == "[]\n"
