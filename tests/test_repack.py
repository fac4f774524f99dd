"""Quantized folders into other formats: what is kept code by code, what is rounded, and what is said of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import quantrs as qr
from conftest import GOLDEN, Ran, run_python
from family_models import MODELS, TOKENS
from huggingface_folders import HF
from quantrs import _native
from quantrs.errors import FileError, FormatError, InputError, UsageError
from quantrs.families import graph_of
from quantrs.formats import awq, compressed_tensors, gptq
from quantrs.formats.compressed_config import WeightScheme, quantization_config
from quantrs.group_quantized import GroupQuantized, quantize_groups
from quantrs.huggingface import Folder, assemble
from quantrs.methods.rounding import Grid
from quantrs.progress import Watcher
from quantrs.quantizing.regrid import regrid
from quantrs.quantizing.schemes import LayerScheme

LLAMA = HF / "tiny-llama3-rope"
WEIGHTS = "model.safetensors"
LINEAR = "model.layers.0.mlp.up_proj"
IDS = [1, 5, 9, 200]
F16 = Grid("gptq-wide", "f16", 0)


class Notices(Watcher):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def notice(self, text: str) -> None:
        self.texts.append(text)


def quantrs(*args: str | Path) -> Ran:
    return run_python("-m", "quantrs", *args)


def quantized(folder: Path, scheme: str) -> Path:
    qr.quantize_checkpoint(LLAMA, folder, scheme=scheme, method="rtn")
    return folder


def convert(src: Path, dst: Path, to: str, **options: object) -> tuple[qr.Report, list[str]]:
    watcher = Notices()
    report = qr.convert(src, dst, to=to, watcher=watcher, **options)  # type: ignore[arg-type]
    return report, watcher.texts


def logits(path: Path) -> np.ndarray:
    return qr.Session(path, activations="float").logits(IDS)


def graph_logits(model: _native.Gguf) -> np.ndarray:
    graph, n_ctx = graph_of(model)
    engine = _native.Engine.load(model, graph.to_json(), n_ctx=n_ctx, activations="float", kv_type="f32")
    return engine.forward(TOKENS, "all")


def same_tensors(a: Path, b: Path) -> bool:
    first, second = load_file(a / WEIGHTS), load_file(b / WEIGHTS)
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype and np.array_equal(first[name], second[name]) for name in first
    )


def random_layer(bits: int = 4, group_size: int = 32, *, symmetric: bool = True, n_out: int = 16, n_in: int = 256) -> GroupQuantized:
    w = np.random.default_rng(0).standard_normal((n_out, n_in), np.float32)
    return quantize_groups(w, bits=bits, group_size=group_size, symmetric=symmetric, scale_type="f16")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("gptq-w4-g64", "w4a16-g64"),
        ("gptq-w4-g64", "w4a16-g32"),
        ("gptq-w4-g64", "awq-w4-g64"),
        ("gptq-w3-g32-asym", "w4a16-g32-asym"),
        ("gptq-w2-g32", "gptq-w8-g16"),
        ("awq-w4-g32", "gptq-w4-g32-asym-v2"),
        ("awq-w4-g32", "w4a16-g32-asym"),
        ("w8a8", "w8a16-g-1"),
        ("w8a16-g64", "gptq-w8-g64"),
        ("w5a16-g32-asym", "w8a16-g32-asym"),
    ],
)
def test_what_the_other_grid_contains_comes_back_bit_for_bit(first: str, second: str, tmp_path: Path) -> None:
    src = quantized(tmp_path / "a", first)
    there, notices = convert(src, tmp_path / "b", second)
    assert "14 of 14 linears have the very same values as in the source" in notices
    assert {errors.max for errors in there.errors if "proj" in errors.group} == {0}
    convert(tmp_path / "b", tmp_path / "c", first)
    if first.startswith("awq") or not second.startswith("awq"):  # whose folders have everything else in float16
        assert np.array_equal(logits(src), logits(tmp_path / "b"))
        assert same_tensors(src, tmp_path / "c")
    before, after = load_file(src / WEIGHTS), load_file(tmp_path / "c" / WEIGHTS)
    packed = [name for name in before if ".layers." in name and "norm" not in name]
    assert packed
    assert [name for name in packed if not np.array_equal(before[name], after[name])] == []


def test_everything_beside_the_linears_travels_along(tmp_path: Path) -> None:
    src = quantized(tmp_path / "a", "gptq-w4-g64")
    (src / "chat_template.jinja").write_text("{{ messages }}")
    convert(src, tmp_path / "b", "w4a16-g64")
    before, after = load_file(src / WEIGHTS), load_file(tmp_path / "b" / WEIGHTS)
    kept = [name for name in before if name in after]
    assert "model.norm.weight" in kept
    assert all(before[name].tobytes() == after[name].tobytes() for name in kept if not name.endswith("weight_scale"))
    assert {path.name for path in src.iterdir()} == {path.name for path in (tmp_path / "b").iterdir()}
    assert (tmp_path / "b" / "chat_template.jinja").read_text() == "{{ messages }}"
    configs = [json.loads((path / "config.json").read_text()) for path in (src, tmp_path / "b")]
    assert [config.pop("quantization_config")["quant_method"] for config in configs] == ["gptq", "compressed-tensors"]
    assert [config.pop("torch_dtype") for config in configs] == ["bfloat16", "float16"]  # that scales stay as they are
    assert configs[0] == configs[1]


def test_linears_that_were_skipped_stay_so(tmp_path: Path) -> None:
    qr.quantize_checkpoint(LLAMA, tmp_path / "a", scheme="w4a16-g64", method="rtn", skip=["down_proj"])
    convert(tmp_path / "a", tmp_path / "b", "gptq-w4-g64")
    config = json.loads((tmp_path / "b" / "config.json").read_text())["quantization_config"]
    assert list(config["dynamic"]) == [rf"-:^model\.layers\.{i}\.mlp\.down_proj$" for i in (0, 1)]
    assert "model.layers.0.mlp.down_proj.weight" in load_file(tmp_path / "b" / WEIGHTS)
    assert np.array_equal(logits(tmp_path / "a"), logits(tmp_path / "b"))


def test_the_report_counts_the_bits_that_the_source_holds(tmp_path: Path) -> None:
    report, _ = convert(quantized(tmp_path / "a", "gptq-w4-g64"), tmp_path / "b", "w8a16-g64")
    assert report.source_bits_per_weight < 8 < report.bits_per_weight < 10


def test_what_the_grid_does_not_contain_is_rounded_and_the_loss_is_printed(tmp_path: Path) -> None:
    src = quantized(tmp_path / "a", "gptq-w4-g64-asym")
    ran = quantrs("convert", src, tmp_path / "b", "--to", "w4a16-g64")
    assert ran.code == 0
    assert "0 of 14 linears have the very same values" in ran.err
    assert "add -asym" in ran.err
    assert "mlp.up_proj" in ran.out
    relative = {e.group: e.relative for e in convert(src, tmp_path / "c", "w4a16-g64")[0].errors}
    assert 0.01 < relative["mlp.up_proj"] < 0.1
    assert same_tensors(tmp_path / "b", tmp_path / "c")


@pytest.mark.parametrize(("type_name", "scheme"), [("Q4_0", "gptq-w4-g32"), ("Q5_0", "w5a16-g32"), ("Q8_0", "w8a16-g32")])
def test_blocks_of_gguf_become_groups_of_32(type_name: str, scheme: str, tmp_path: Path) -> None:
    qr.quantize_checkpoint(LLAMA, tmp_path / "a.gguf", scheme=type_name, pre="llama-bpe")
    qr.convert(tmp_path / "a.gguf", tmp_path / "floats", to="F16")
    report, notices = convert(tmp_path / "a.gguf", tmp_path / "b", scheme)
    assert "14 of 14 linears have the very same values as in the source" in notices
    assert report.file_type == scheme
    with qr.open(tmp_path / "a.gguf") as before:
        assert before.tensors["blk.0.attn_q.weight"].type == type_name.lower()
    qr.convert(tmp_path / "b", tmp_path / "again.gguf", pre="llama-bpe")
    with qr.open(tmp_path / "a.gguf") as before, qr.open(tmp_path / "again.gguf") as after:
        for name, tensor in before.tensors.items():
            if "blk" in name:
                assert np.array_equal(tensor.dequantize(), after.tensors[name].dequantize()), name


def test_blocks_with_minima_are_rounded(tmp_path: Path) -> None:
    qr.quantize_checkpoint(LLAMA, tmp_path / "a.gguf", scheme="Q4_1", pre="llama-bpe")
    report, notices = convert(tmp_path / "a.gguf", tmp_path / "b", "awq-w4-g32")
    assert any("blocks with minima are on no grid" in text for text in notices)
    assert all(0 < errors.relative < 0.1 for errors in report.errors if "proj" in errors.group)


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("gpt2", "llama_rope_factors")])
def test_every_family_goes_over(name: str, tmp_path: Path) -> None:
    """Wrong rows or a lost expert would change everything. The middle token counts, since float16 may send one to another expert."""
    (tmp_path / "f32.gguf").write_bytes(MODELS[name].to_bytes())
    qr.quantize_checkpoint(tmp_path / "f32.gguf", tmp_path / "a.gguf", scheme="Q8_0")
    qr.convert(tmp_path / "a.gguf", tmp_path / "floats", to="F32")
    _, notices = convert(tmp_path / "a.gguf", tmp_path / "b", "w8a16-g16")
    assert [text for text in notices if "rounded" in text] == []
    again, _ = convert(tmp_path / "b", tmp_path / "c", "w8a16-g32")
    assert {errors.max for errors in again.errors} == {0}
    before, after = (graph_logits(assemble(Folder.open(tmp_path / name), with_tokenizer=False)) for name in ("floats", "c"))
    assert np.median(np.abs(after - before).max(axis=1)) < 2e-3 * np.abs(before).max()


@pytest.mark.parametrize(
    ("golden", "to", "exact"),
    [
        ("gptq/tiny_llama_w4g64_sym", "w4a16-g64", True),
        ("gptq/tiny_llama_w4g32_asym_act", "gptq-w4-g32-asym-act", True),
        ("gptq/tiny_llama_w4g32_asym_act", "gptq-w8-g16-asym-act", True),
        ("gptq/tiny_llama_w4g32_asym_act", "gptq-w4-g32-asym", False),
        ("awq/tiny_llama_w4g64", "gptq-w4-g64-asym-v2", True),
        ("compressed_tensors/tiny_llama_w4a16_g128_sym", "gptq-w4-g128", True),
        ("compressed_tensors/tiny_llama_w4a16_g32_asym", "awq-w4-g32", True),
        ("compressed_tensors/tiny_llama_w8a8_int", "w8a16-g-1", True),
        ("compressed_tensors/tiny_llama_w8a8_int", "w4a16-g64", False),
        ("compressed_tensors/tiny_llama_fp8_dynamic", "w8a16-g-1", False),
        ("compressed_tensors/tiny_llama_nvfp4a16", "w8a16-g16", False),
        ("compressed_tensors/tiny_llama_mxfp4a16", "w4a16-g32", False),
    ],
)
def test_folders_of_the_formats_own_tools_are_read(golden: str, to: str, exact: bool, tmp_path: Path) -> None:
    report, notices = convert(GOLDEN / golden, tmp_path / "b", to, arch="generic")
    assert f"{int(exact)} of 1 linears have the very same values as in the source" in notices
    assert any("were rounded" in text for text in notices) != exact
    qr.convert(GOLDEN / golden, tmp_path / "x", to="F32", arch="generic")
    qr.convert(tmp_path / "b", tmp_path / "y", to="F32", arch="generic")
    before, after = (load_file(tmp_path / name / WEIGHTS) for name in ("x", "y"))
    name = "model.layers.0.self_attn.k_proj.weight"
    error = np.abs(before[name] - after[name]).max()
    assert error == report.errors[0].max
    assert (error == 0) == exact


def test_activation_order_comes_back_byte_for_byte(tmp_path: Path) -> None:
    golden = GOLDEN / "gptq" / "tiny_llama_w4g32_asym_act"
    convert(golden, tmp_path / "b", "gptq-w4-g32-asym-act", arch="generic")
    before, after = load_file(golden / "layer.safetensors"), load_file(tmp_path / "b" / WEIGHTS)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert json.loads((tmp_path / "b" / "config.json").read_text())["quantization_config"]["desc_act"] is True


def test_zero_points_of_zero_move_up_where_codes_leave_room_and_are_rounded_elsewhere() -> None:
    q = random_layer(symmetric=False)
    zeros, codes = q.zeros.copy(), q.codes.copy()
    zeros[0, :2] = 0
    codes[0, :32] = np.arange(32) % 15
    codes[0, 32:64] = np.arange(32) % 16
    q = replace(q, zeros=zeros, codes=codes)
    found = regrid(q, LayerScheme(group_size=32, symmetric=False), Grid("gptq-wide", "f16", 1), threads=1)
    assert found.why_rounded == ("zero points of 0",)
    assert found.layer.zeros.min() == 1
    assert np.array_equal(found.layer.codes[0, :32], codes[0, :32] + 1)
    changed = (found.layer.dequantize() != q.dequantize()).reshape(16, 8, 32).any(axis=2)
    assert np.argwhere(changed).tolist() == [[0, 1]]  # no other group is touched
    assert regrid(q, LayerScheme(group_size=32, symmetric=False), F16, threads=1).why_rounded == ()


def test_a_folder_with_zero_points_of_zero_is_told_of_version_2(tmp_path: Path) -> None:
    q = random_layer(symmetric=False, n_in=128)
    q = replace(q, zeros=np.zeros_like(q.zeros))
    src = tmp_path / "a"
    src.mkdir()
    save_file({f"{LINEAR}.{key}": value for key, value in awq.pack_layer(q).items()}, src / WEIGHTS)
    config = {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}}
    (src / "config.json").write_text(json.dumps(config))
    _, notices = convert(src, tmp_path / "b", "gptq-w4-g32-asym", arch="generic")
    assert any("add -v2" in text for text in notices)
    _, notices = convert(src, tmp_path / "c", "gptq-w4-g32-asym-v2", arch="generic")
    assert "1 of 1 linears have the very same values as in the source" in notices


def test_larger_groups_of_one_scale_are_found_again() -> None:
    q = random_layer(group_size=64)
    fine = regrid(q, LayerScheme(group_size=16), F16, threads=1)
    coarse = regrid(fine.layer, LayerScheme(group_size=64), F16, threads=1)
    assert fine.why_rounded == coarse.why_rounded == ()
    assert np.array_equal(coarse.layer.scales, q.scales)
    assert np.array_equal(coarse.layer.codes, q.codes)
    assert regrid(q, LayerScheme(group_size=128), F16, threads=1).why_rounded == ("groups of other columns",)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
def test_more_bits_hold_every_value(bits: int, symmetric: bool) -> None:
    q = random_layer(bits, symmetric=symmetric)
    for more in range(bits, 9):
        found = regrid(q, LayerScheme(bits=more, group_size=16, symmetric=symmetric), F16, threads=1)
        assert found.why_rounded == ()
        assert np.array_equal(found.layer.dequantize(), q.dequantize())


def test_fewer_bits_hold_codes_that_do_not_use_them() -> None:
    q = random_layer(2)
    wide = regrid(q, LayerScheme(bits=8, group_size=32), F16, threads=1).layer
    back = regrid(wide, LayerScheme(bits=2, group_size=32), F16, threads=1)
    assert back.why_rounded == ()
    assert np.array_equal(back.layer.codes, q.codes)
    assert regrid(random_layer(8), LayerScheme(bits=4, group_size=32), F16, threads=1).why_rounded == ("codes beyond the range",)


def test_rows_are_cut_into_chunks_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    q, scheme = random_layer(symmetric=False), LayerScheme(group_size=64)
    whole = regrid(q, scheme, F16, threads=1).layer
    monkeypatch.setattr("quantrs.quantizing.regrid._CHUNK_WEIGHTS", 3 * 256)
    cut = regrid(q, scheme, F16, threads=2).layer
    assert all(np.array_equal(getattr(whole, name), getattr(cut, name)) for name in ("codes", "scales", "zeros", "g_idx"))


def brain_floats(folder: Path, scale: float = 1.0) -> Path:
    """A model of compressed-tensors whose scales need bfloat16 if they are very small."""
    q = random_layer(n_in=128)
    q = replace(q, scales=(q.scales * np.float32(scale)).astype(ml_dtypes.bfloat16).astype(np.float32))
    scheme = WeightScheme(format="pack-quantized", bits=4, group_size=32)
    folder.mkdir()
    packed = compressed_tensors.pack_layer(q, scheme, np.dtype(ml_dtypes.bfloat16))
    save_file({f"{LINEAR}.{key}": value for key, value in packed.items()}, folder / WEIGHTS)
    config = {"torch_dtype": "bfloat16", "quantization_config": quantization_config({LINEAR: scheme}, ignore=[])}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_scales_of_bfloat16_stay_or_are_rounded_alone(tmp_path: Path) -> None:
    small = brain_floats(tmp_path / "small", scale=2.0**-30)
    _, notices = convert(small, tmp_path / "ct", "w8a16-g32", arch="generic")
    assert notices == ["1 of 1 linears have the very same values as in the source"]
    assert json.loads((tmp_path / "ct" / "config.json").read_text())["torch_dtype"] == "bfloat16"
    report, notices = convert(small, tmp_path / "gptq", "gptq-w4-g32", arch="generic")
    assert any("scales are of a type" in text for text in notices)
    assert report.errors[0].exact == 0
    usual = brain_floats(tmp_path / "usual")
    report, _ = convert(usual, tmp_path / "usual-gptq", "gptq-w4-g32", arch="generic")
    assert report.errors[0].exact == 1


@pytest.mark.parametrize(
    ("first", "second", "dtype"),
    [
        ("gptq-w4-g64", "w4a16-g32", "float16"),
        ("gptq-w4-g64", "w4a16-g128", "bfloat16"),
        ("gptq-w4-g64-asym", "w4a16-g64", "bfloat16"),
        ("gptq-w4-g64", "fp8", "bfloat16"),
        ("w4a16-g64", "w4a16-g32", "bfloat16"),
    ],
)
def test_the_folder_s_type_changes_only_if_that_keeps_scales(first: str, second: str, dtype: str, tmp_path: Path) -> None:
    _, notices = convert(quantized(tmp_path / "a", first), tmp_path / "b", second)
    assert json.loads((tmp_path / "b" / "config.json").read_text())["torch_dtype"] == dtype
    assert any("config.json says float16" in text for text in notices) == (dtype == "float16")


def test_a_job_that_was_broken_off_goes_on_and_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    src = quantized(tmp_path / "a", "gptq-w4-g64")
    calls = iter(range(5))

    def breaks(q: GroupQuantized, *args: object, **options: object) -> object:
        if next(calls, None) is None:
            raise FileError("the disk is gone")
        return regrid(q, *args, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("quantrs.quantizing.repack.regrid", breaks)
        with pytest.raises(FileError, match="the disk is gone"):
            qr.convert(src, tmp_path / "b", to="w4a16-g32")
    report, notices = convert(src, tmp_path / "b", "w4a16-g32", resume=True)
    assert report.resumed_tensors > 5
    assert "14 of 14 linears have the very same values as in the source" in notices
    convert(src, tmp_path / "c", "w4a16-g32")
    assert (tmp_path / "b" / WEIGHTS).read_bytes() == (tmp_path / "c" / WEIGHTS).read_bytes()
    assert convert(src, tmp_path / "b", "w4a16-g32", resume=True)[0].already_complete


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (("{llama}", "{tmp}/b", "--to", "gptq-w4-g64"), "its linears are not quantized", 1),
        (("{src}", "{tmp}/b", "--to", "Q4_K_M"), "quantize writes the types of GGUF files", 2),
        (("{src}", "{tmp}/b", "--to", "gptq-w5-g64"), "found 5 bits", 2),
        (("{src}", "{tmp}/b.gguf", "--to", "gptq-w4-g64"), "is what checkpoint folders hold", 2),
        (("{src}", "{tmp}/b", "--to", "gptq-w4-g64", "--lora", "x"), "--lora: adapters are of floats", 2),
        (("{src}", "{tmp}/b", "--to", "gptq-w4-g256"), "not a multiple of the group size 256", 1),
        (("{src}", "{src}", "--to", "gptq-w4-g64"), "exists already", 1),
    ],
)
def test_a_refusal_says_what_to_do_and_leaves_nothing(arguments: tuple[str, ...], words: str, code: int, tmp_path: Path) -> None:
    src = quantized(tmp_path / "src", "w4a16-g64")
    ran = quantrs("convert", *(text.format(llama=LLAMA, src=src, tmp=tmp_path) for text in arguments))
    assert (ran.code, words in ran.err) == (code, True), ran.err
    assert "Traceback" not in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["src"]


def test_damage_is_told_by_name_and_nothing_is_left(tmp_path: Path) -> None:
    src = quantized(tmp_path / "a", "gptq-w4-g64")
    tensors = load_file(src / WEIGHTS)
    g_idx, scales = tensors[f"{LINEAR}.g_idx"].copy(), tensors[f"{LINEAR}.scales"].copy()
    g_idx[3], scales[1, 2] = 9, np.inf
    for name, damaged in {"g_idx": g_idx, "scales": scales}.items():
        save_file(tensors | {f"{LINEAR}.{name}": damaged}, src / WEIGHTS)
        with pytest.raises((FormatError, InputError), match=rf"up_proj.*{name.rstrip('s')}"):
            qr.convert(src, tmp_path / "b", to="w4a16-g64")
        assert not (tmp_path / "b").exists()


def test_one_that_does_not_fit_the_words_of_the_format_is_named(tmp_path: Path) -> None:
    src = tmp_path / "a"
    src.mkdir()
    q = random_layer(n_out=12, n_in=128)
    scheme = WeightScheme(format="pack-quantized", bits=4, group_size=32)
    packed = compressed_tensors.pack_layer(q, scheme, np.dtype(np.float16))
    save_file({f"{LINEAR}.{key}": value for key, value in packed.items()}, src / WEIGHTS)
    (src / "config.json").write_text(json.dumps({"quantization_config": quantization_config({LINEAR: scheme}, ignore=[])}))
    with pytest.raises(InputError, match=rf"{LINEAR}: out_features 12 is not a multiple of 8"):
        qr.convert(src, tmp_path / "b", to="gptq-w4-g32", arch="generic")


def test_an_output_matrix_of_codes_stays_one_where_loaders_know_it(tmp_path: Path) -> None:
    src = tmp_path / "a"
    src.mkdir()
    q = random_layer(n_in=128)
    tensors = {f"{name}.{key}": value for name in (LINEAR, "lm_head") for key, value in gptq.pack_layer(q).items()}
    save_file(tensors, src / WEIGHTS)
    config = gptq.quantization_config(bits=4, group_size=32, symmetric=True, desc_act=False, lm_head=True)
    (src / "config.json").write_text(json.dumps({"quantization_config": config}))
    convert(src, tmp_path / "b", "gptq-w8-g32", arch="generic")
    assert json.loads((tmp_path / "b" / "config.json").read_text())["quantization_config"]["lm_head"] is True
    convert(src, tmp_path / "c", "awq-w4-g32", arch="generic")
    written = load_file(tmp_path / "c" / WEIGHTS)
    assert written["lm_head.weight"].dtype == np.float16
    assert f"{LINEAR}.qweight" in written


def test_a_wrong_type_is_no_usage_of_the_library_either(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="found 'Q9_X', expected one of F32, F16, BF16, or for folders"):
        qr.convert(LLAMA, tmp_path / "b", to="Q9_X")
