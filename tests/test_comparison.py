"""verify A B: the same model in other types passes, everything else is told with its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import quantrs as qr
from conftest import GOLDEN, Ran
from family_models import MODELS
from gguf_bytes import gguf, llama, write_llama
from golden_ggml import golden_types
from quantrs import _native
from quantrs.comparison import compare
from quantrs.open_model import open_model
from quantrs.type_tolerance import GRIDS, is_bounded_each, row_tolerance, tolerance
from speaking_model import write_speaker

TINY = GOLDEN / "ggml" / "tiny"
FLOATS = {"F16", "BF16"}


def beyond(name: str, values: np.ndarray, rounded: np.ndarray) -> float:
    """The largest error as a part of what is allowed."""
    error = np.abs(rounded - values)
    if is_bounded_each(name):
        return float((error / tolerance(name, values)).max())
    allowed = np.minimum(row_tolerance(name, values), np.linalg.norm(values, axis=1))
    return float((np.linalg.norm(error, axis=1) / allowed).max())


def test_every_type_that_can_be_decoded_has_a_limit() -> None:
    decodable = {t.name.upper() for t in qr.types() if t.can_dequantize}
    assert decodable - set(GRIDS) - {"F32", *FLOATS} <= {"Q8_1", "Q8_K"}
    assert set(GRIDS) <= decodable


@pytest.mark.parametrize("name", sorted({*GRIDS, *FLOATS}))
def test_what_ggml_quantized_is_within_the_limit_and_shifted_rows_are_not(name: str) -> None:
    assert name in golden_types(GOLDEN / "ggml")
    with np.load(GOLDEN / "ggml" / "inputs.npz") as inputs, np.load(GOLDEN / "ggml" / f"{name}.npz") as golden:
        keys = [key for key in golden.files if "/dequant" in key and not key.startswith("edge")]
        assert keys
        for key in keys:
            values = inputs[key.partition("/")[0]]
            assert beyond(name, values, golden[key]) <= 1, key
            if key.startswith(("gauss", "smollm")):
                assert beyond(name, values, np.roll(golden[key], 1, axis=0)) > 1, key


@pytest.mark.parametrize("name", sorted(t.name for t in qr.types() if t.name.upper() in GRIDS and t.importance == "used"))
def test_importance_that_differs_by_thousands_keeps_within_the_limit(name: str) -> None:
    if not next(t for t in qr.types() if t.name == name).can_quantize:
        pytest.skip("not written yet")
    rng = np.random.default_rng(0)
    importance = np.exp(3 * rng.standard_normal(1024)).astype(np.float32)
    for values in (rng.standard_normal((32, 1024)), rng.standard_t(3, (32, 1024)), rng.uniform(1, 2, (32, 1024))):
        x = values.astype(np.float32)
        assert beyond(name.upper(), x, qr.quantize(x, name, importance=importance).dequantize()) <= 1


@pytest.mark.parametrize("other", ["tiny-Q4_K_M.gguf", "tiny-IQ2_XXS-imat.gguf", "tiny-Q3_K_S-imat.gguf"])
def test_files_that_llama_quantize_wrote_are_the_same_model(other: str) -> None:
    found = compare(TINY / "tiny-f16.gguf", TINY / other)
    assert found.findings == ()
    assert {g.group for g in found.groups} >= {"attn_q", "ffn_down", "output"}
    assert all(g.relative <= g.limit for g in found.groups)


@pytest.mark.parametrize("file_type", ["F32", "BF16", "Q8_0", "Q6_K", "Q4_0", "Q2_K", "IQ4_XS", "TQ2_0", "MXFP4_MOE"])
def test_what_quantize_writes_is_the_same_model(file_type: str, tmp_path: Path) -> None:
    source = write_llama(tmp_path / "a.gguf")
    qr.quantize_checkpoint(source, tmp_path / "b.gguf", scheme=file_type)
    found = compare(source, tmp_path / "b.gguf")
    assert found.findings == ()
    assert compare(tmp_path / "b.gguf", source).findings == ()
    assert next(g for g in found.groups if g.group == "attn_q").relative > 0 or file_type == "F32"


def test_the_relative_difference_is_that_of_the_values(tmp_path: Path) -> None:
    tensors, metadata = llama()
    (tmp_path / "a.gguf").write_bytes(gguf(tensors, metadata))
    qr.quantize_checkpoint(tmp_path / "a.gguf", tmp_path / "b.gguf", scheme="Q4_0")
    group = next(g for g in compare(tmp_path / "a.gguf", tmp_path / "b.gguf").groups if g.group == "ffn_up")
    pairs = [tensors[f"blk.{i}.ffn_up.weight"].astype(np.float32) for i in range(2)]
    errors = [qr.quantize(x, "q4_0").dequantize() - x for x in pairs]
    assert group.relative == pytest.approx(np.linalg.norm(errors) / np.linalg.norm(pairs), rel=1e-5)
    assert group.max == pytest.approx(np.abs(errors).max())


def changed(path: Path, change: Callable[[dict[str, np.ndarray], dict[str, object]], object]) -> Path:
    tensors, metadata = llama()
    change(tensors, metadata)
    path.write_bytes(gguf(tensors, metadata))
    return path


def swap_rows(tensors: dict[str, np.ndarray], _: object) -> None:
    w = tensors["blk.1.attn_q.weight"]
    w[[16, 17]] = w[[17, 16]]


def shift_norm(tensors: dict[str, np.ndarray], _: object) -> None:
    tensors["blk.0.attn_norm.weight"] += 1


def one_value(tensors: dict[str, np.ndarray], _: object) -> None:
    tensors["output.weight"][3, 200] *= 3


@pytest.mark.parametrize(
    ("change", "tensor", "row"),
    [
        (swap_rows, "blk.1.attn_q.weight", "2 of 256 rows, the first is row 16"),
        (shift_norm, "blk.0.attn_norm.weight", "1 of 1 rows"),
        (one_value, "output.weight", "row 3"),
    ],
)
def test_a_tensor_whose_values_differ_is_named_with_its_first_row(change: Callable, tensor: str, row: str, tmp_path: Path) -> None:
    source = write_llama(tmp_path / "a.gguf")
    (finding,) = compare(source, changed(tmp_path / "b.gguf", change)).findings
    assert finding.where == tensor
    assert row in finding.what


def test_swapped_rows_are_found_behind_quantization(tmp_path: Path) -> None:
    source, other = write_llama(tmp_path / "a.gguf"), changed(tmp_path / "b.gguf", swap_rows)
    qr.quantize_checkpoint(other, tmp_path / "c.gguf", scheme="Q4_K_M")
    assert [f.where for f in compare(source, tmp_path / "c.gguf").findings] == ["blk.1.attn_q.weight"]


def test_a_value_that_is_no_number_differs_from_all(tmp_path: Path) -> None:
    def poison(tensors: dict[str, np.ndarray], _: object) -> None:
        tensors["blk.0.ffn_up.weight"][1, 1] = np.nan

    (finding,) = compare(write_llama(tmp_path / "a.gguf"), changed(tmp_path / "b.gguf", poison)).findings
    assert finding.where == "blk.0.ffn_up.weight"


def test_tensors_that_only_one_has_and_other_shapes_are_findings(tmp_path: Path) -> None:
    def change(tensors: dict[str, np.ndarray], _: object) -> None:
        del tensors["output.weight"]
        tensors["extra.weight"] = np.ones(32, np.float32)
        tensors["blk.0.attn_k.weight"] = tensors["blk.0.attn_k.weight"][:128]

    found = {f.where: f.what for f in compare(write_llama(tmp_path / "a.gguf"), changed(tmp_path / "b.gguf", change)).findings}
    assert found["output.weight"] == "only A has it"
    assert found["extra.weight"] == "only B has it"
    assert "(256, 256) in A, (128, 256) in B" in found["blk.0.attn_k.weight"]


def test_hyperparameters_that_differ_are_findings_and_names_are_notices(tmp_path: Path) -> None:
    def change(_: object, metadata: dict[str, object]) -> None:
        metadata |= {"llama.attention.head_count": 8, "general.name": "other", "general.license": "mit"}

    found = compare(write_llama(tmp_path / "a.gguf"), changed(tmp_path / "b.gguf", change))
    assert [(f.where, f.what) for f in found.findings] == [("llama.attention.head_count", "4 in A, 8 in B")]
    assert found.notices[:2] == ("general.name: small in A, other in B", "general.license: only in B")


def test_a_missing_key_counts_where_its_default_makes_another_graph(tmp_path: Path) -> None:
    model = MODELS["llama"]
    (tmp_path / "a.gguf").write_bytes(model.to_bytes())
    for base, n_findings in ((10_000.0, 0), (50_000.0, 1)):
        model.metadata["rope.freq_base"] = base
        (tmp_path / "b.gguf").write_bytes(model.to_bytes())
        del model.metadata["rope.freq_base"]
        found = compare(tmp_path / "a.gguf", tmp_path / "b.gguf")
        assert "llama.rope.freq_base: only in B" in found.notices
        assert len(found.findings) == n_findings
    assert "rope.base is 10000.0 in A, 50000.0 in B" in found.findings[0].what


def test_tokenizers_are_compared_by_what_they_do(tmp_path: Path) -> None:
    write_speaker(tmp_path / "a.gguf", "\nHi!", "o, bye")
    same = compare(tmp_path / "a.gguf", tmp_path / "a.gguf")
    assert same.texts > 50
    assert same.findings == ()
    write_speaker(tmp_path / "b.gguf", "\nHi!", "o, bye")
    data = (tmp_path / "b.gguf").read_bytes()
    at = data.index(b"tokenizer.ggml.tokens")
    a, b = (data.index(len(c).to_bytes(8, "little") + c, at) for c in (b"e", b"t"))
    swapped = bytearray(data)
    swapped[a + 8], swapped[b + 8] = swapped[b + 8], swapped[a + 8]
    (tmp_path / "b.gguf").write_bytes(swapped)
    found = compare(tmp_path / "a.gguf", tmp_path / "b.gguf")
    assert [f.where for f in found.findings] == ["tokenizer"]
    assert "tokenized differently" in found.findings[0].what
    assert any(n.startswith("tokenizer.ggml.tokens: 2 of") for n in found.notices)


def test_the_command_says_what_differs_and_exits_with_it(tmp_path: Path, command: Callable[..., Ran]) -> None:
    source, other = write_llama(tmp_path / "a.gguf"), changed(tmp_path / "b.gguf", swap_rows)
    same = command("verify", source, source)
    assert (same.code, "the same model" in same.out) == (0, True)
    ran = command("verify", source, other)
    assert (ran.code, "not the same: 1 findings" in ran.out, "blk.1.attn_q.weight: values differ" in ran.err) == (1, True, True)
    value = json.loads(command("verify", source, other, "--json", "--threads", "1").out)
    assert value["findings"][0]["where"] == "blk.1.attn_q.weight"
    assert command("verify", source, tmp_path / "absent.gguf").code == 1


def test_results_do_not_depend_on_threads(tmp_path: Path) -> None:
    source = write_llama(tmp_path / "a.gguf", vocab=4096)
    qr.quantize_checkpoint(source, tmp_path / "b.gguf", scheme="Q4_K_M")
    one, four = (compare(source, tmp_path / "b.gguf", threads=n) for n in (1, 4))
    assert one == four


FOLDERS = [path.parent for path in sorted((GOLDEN / "hf").glob("*/model.safetensors"))]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_a_folder_and_the_file_made_of_it_are_the_same_model(folder: Path, tmp_path: Path) -> None:
    qr.quantize_checkpoint(folder, tmp_path / "m.gguf", scheme="Q8_0")
    for a, b in ((folder, tmp_path / "m.gguf"), (tmp_path / "m.gguf", folder)):
        found = compare(a, b)
        assert found.findings == ()
        assert found.texts > 50


def test_another_pre_tokenizer_is_found(tmp_path: Path) -> None:
    qr.quantize_checkpoint(FOLDERS[0], tmp_path / "m.gguf", scheme="Q8_0", pre="llama-bpe")
    (finding,) = compare(FOLDERS[0], tmp_path / "m.gguf").findings
    assert finding.where == "tokenizer"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_rows_of_an_assembly_are_those_of_the_whole(folder: Path) -> None:
    gguf = open_model(folder)
    sources = _native.Sources(gguf)
    for tensor in gguf.tensors:
        whole, n_rows = sources.read(tensor), int(np.prod(tensor.dims[1:]))
        row_bytes = len(whole) // n_rows
        for first, n in ((0, n_rows), (n_rows // 3, n_rows // 2), (n_rows - 1, 1), (n_rows, 0)):
            assert sources.read_rows(tensor, first, n) == whole[first * row_bytes : (first + n) * row_bytes], tensor.name
        with pytest.raises(qr.InputError, match=r"rows \d+\.\.\+2 of"):
            sources.read_rows(tensor, n_rows - 1, 2)
