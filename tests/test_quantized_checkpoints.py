"""Quantized checkpoint folders as models: read like any other, converted, and refused where they make no sense."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import quantrs as qr
from huggingface_folders import HF, assembled
from quantized_folders import CHECKPOINTS, LAYER, golden_layer
from quantrs import _native
from quantrs.formats import FORMATS, awq, compressed_tensors, find_quantized, gptq
from quantrs.formats.compressed_config import WeightScheme, quantization_config
from quantrs.formats.layer import read_array
from quantrs.group_quantized import GroupQuantized, quantize_groups
from quantrs.huggingface import assemble
from quantrs.open_model import open_model
from quantrs.sizing import size_of_model
from quantrs.verify import verify

TOKENS = list(range(3, 40, 3))
SYMMETRIC = WeightScheme(format="pack-quantized", bits=4, group_size=32, symmetric=True)


def values(gguf: _native.Gguf, name: str) -> np.ndarray:
    """A tensor of floats or blocks, in float32."""
    (tensor,) = (tensor for tensor in gguf.tensors if tensor.name == name)
    raw = np.frombuffer(_native.Sources(gguf).read(tensor), np.uint8)
    n_cols, n_rows = tensor.dims
    out = np.empty(4 * n_cols * n_rows, np.uint8)
    _native.convert_rows(raw, str(tensor.type_name), out, "F32", n_cols)
    return out.view(np.float32).reshape(n_rows, n_cols)


TYPES = {
    "awq/tiny_llama_w4g64": "Q8_0",
    "compressed_tensors/tiny_llama_fp8_dynamic": "F32",
    "compressed_tensors/tiny_llama_mxfp4a16": "MXFP4",
    "compressed_tensors/tiny_llama_nvfp4a16": "F32",
    "compressed_tensors/tiny_llama_w4a16_g128_sym": "Q4_0",
    "compressed_tensors/tiny_llama_w4a16_g32_asym": "Q8_0",
    "compressed_tensors/tiny_llama_w8a8_int": "Q8_0",
    "gptq/tiny_llama_w4g32_asym_act": "F32",
    "gptq/tiny_llama_w4g64_sym": "Q4_0",
}


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_golden_linears_have_their_values_in_the_type_that_holds_them(checkpoint: str) -> None:
    folder = golden_layer(checkpoint)
    found = find_quantized(folder)
    assert found is not None
    layer = FORMATS[found.method].unpack_layer(found.layers[LAYER], lambda tensor: read_array(folder, tensor))
    expected = layer.dequantize() if isinstance(layer, GroupQuantized) else layer
    gguf = assemble(folder, arch="generic")
    assert {tensor.name: tensor.type_name for tensor in gguf.tensors} == {f"{LAYER}.weight": TYPES[checkpoint]}
    assert np.array_equal(values(gguf, f"{LAYER}.weight"), expected)


@dataclass(frozen=True)
class Made:
    """A checkpoint folder quantized here, and the same values in floats."""

    quantized: Path
    floats: Path


def pack_rows(q: GroupQuantized) -> dict[str, np.ndarray]:
    return compressed_tensors.pack_layer(q, SYMMETRIC, np.dtype(np.float16))


def scattered(q: GroupQuantized) -> GroupQuantized:
    """As activation order leaves it."""
    order = np.random.default_rng(1).permutation(q.shape[1])
    return replace(q, g_idx=np.ascontiguousarray(q.g_idx[order]))


KINDS: dict[str, tuple[dict[str, object], Callable[[np.ndarray], GroupQuantized], Callable[[GroupQuantized], dict[str, np.ndarray]]]] = {
    "gptq": (
        gptq.quantization_config(bits=4, group_size=32, symmetric=True, desc_act=False),
        lambda w: quantize_groups(w, bits=4, group_size=32, symmetric=True, scale_type="f16"),
        gptq.pack_layer,
    ),
    "gptq-act-order": (
        gptq.quantization_config(bits=3, group_size=32, symmetric=False, desc_act=True),
        lambda w: scattered(quantize_groups(w, bits=3, group_size=32, symmetric=False, scale_type="f16")),
        gptq.pack_layer,
    ),
    "awq": (
        awq.quantization_config(group_size=64),
        lambda w: quantize_groups(w, bits=4, group_size=64, symmetric=False, scale_type="f16"),
        awq.pack_layer,
    ),
    "rows": (
        quantization_config({"model.layers.0.mlp.up_proj": SYMMETRIC}, ignore=["lm_head"]),
        lambda w: quantize_groups(w, bits=4, group_size=32, symmetric=True, scale_type="f16"),
        pack_rows,
    ),
}


def make(kind: str, tmp_path: Path, model: str = "tiny-llama3-rope") -> Made:
    """By default a model whose queries and keys change places on their way into a GGUF file."""
    config, quantize, pack = KINDS[kind]
    tensors, dense = {}, {}
    for name, array in load_file(HF / model / "model.safetensors").items():
        is_transposed = model == "tiny-gpt2"  # as it is stored; linears that are quantized never are
        if not name.endswith(("proj.weight", "c_attn.weight", "c_fc.weight")):
            tensors[name] = dense[name] = array
            continue
        q = quantize((array.T if is_transposed else array).astype(np.float32))
        tensors |= {f"{name.removesuffix('.weight')}.{suffix}": packed for suffix, packed in pack(q).items()}
        dense[name] = np.ascontiguousarray(q.dequantize().T) if is_transposed else q.dequantize()
    made = Made(tmp_path / kind, tmp_path / f"{kind}-floats")
    for folder, arrays, more in ((made.quantized, tensors, {"quantization_config": config}), (made.floats, dense, {})):
        shutil.copytree(HF / model, folder)
        settings = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(settings | more))
        save_file(arrays, folder / "model.safetensors")
    return made


def logits(path: Path) -> np.ndarray:
    return qr.Session(path, activations="float").logits(TOKENS)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_the_same_values_in_floats(kind: str, tmp_path: Path) -> None:
    made = make(kind, tmp_path)
    expected = logits(made.floats)
    assert np.abs(logits(made.quantized) - expected).max() < 2e-6 * np.abs(expected).max()


@pytest.mark.parametrize("model", ["tiny-gpt2", "tiny-qwen2moe"])
def test_experts_and_linears_that_gpt2_stores_transposed_are_read(model: str, tmp_path: Path) -> None:
    made = make("gptq", tmp_path, model)
    expected = logits(made.floats)
    assert np.abs(logits(made.quantized) - expected).max() < 2e-6 * np.abs(expected).max()
    linears = {tensor.type_name for tensor in assembled(made.quantized).tensors if tensor.name.startswith("blk.0.ffn_up")}
    assert "Q4_0" in linears


def test_experts_of_different_grids_have_the_type_that_holds_them_all(tmp_path: Path) -> None:
    made = make("gptq", tmp_path, "tiny-qwen2moe")

    def ask_for_another_zero_point(arrays: dict[str, np.ndarray]) -> None:
        arrays["model.layers.1.mlp.experts.3.up_proj.qzeros"] -= 1

    change(made.quantized, ask_for_another_zero_point)
    types = {tensor.name: tensor.type_name for tensor in assembled(made.quantized).tensors}
    assert (types["blk.0.ffn_up_exps.weight"], types["blk.1.ffn_up_exps.weight"]) == ("Q4_0", "Q8_0")
    assert np.isfinite(logits(made.quantized)).all()


@pytest.mark.parametrize(("kind", "types"), [("gptq", {"Q4_0"}), ("awq", {"Q8_0"}), ("rows", {"Q4_0"})])
def test_a_converted_file_has_the_very_values(kind: str, types: set[str], tmp_path: Path) -> None:
    made, file = make(kind, tmp_path), tmp_path / "m.gguf"
    report = qr.convert(made.quantized, file, pre="llama-bpe")
    assert report.errors == ()
    written = _native.Gguf.open(file)
    assert {tensor.type_name for tensor in written.tensors if "ffn" in tensor.name and len(tensor.dims) > 1} == types
    assert np.array_equal(logits(file), logits(made.quantized))
    assert written.get("general.file_type") == {"Q4_0": 2, "Q8_0": 7}[types.pop()]


def test_what_no_block_type_holds_becomes_f16_and_the_loss_is_told(tmp_path: Path) -> None:
    made, file = make("gptq-act-order", tmp_path), tmp_path / "m.gguf"
    report = qr.convert(made.quantized, file, pre="llama-bpe")
    assert {error.group for error in report.errors} >= {"attn_q", "ffn_down"}
    assert all(0 < error.relative < 3e-4 and error.types == ("F16",) for error in report.errors)
    assert _native.Gguf.open(file).get("general.file_type") == 1
    expected = logits(made.quantized)
    assert np.abs(logits(file) - expected).max() < 1e-3 * np.abs(expected).max()


def test_a_quantized_folder_becomes_one_of_floats(tmp_path: Path) -> None:
    made, plain = make("gptq-act-order", tmp_path), tmp_path / "plain"
    report = qr.convert(made.quantized, plain, to="F32")
    assert report.errors == () or max(error.max for error in report.errors) == 0
    assert "quantization_config" not in json.loads((plain / "config.json").read_text())
    assert (plain / "tokenizer.json").read_bytes() == (made.quantized / "tokenizer.json").read_bytes()
    for name, array in load_file(made.floats / "model.safetensors").items():
        assert np.array_equal(load_file(plain / "model.safetensors")[name].astype(np.float32), array.astype(np.float32)), name
    assert np.array_equal(logits(plain), logits(made.floats))


@pytest.mark.parametrize("kind", ["gptq", "gptq-act-order"])
def test_quantizing_a_second_time_has_to_be_asked_for(kind: str, tmp_path: Path) -> None:
    made, file = make(kind, tmp_path), tmp_path / "m.gguf"
    with pytest.raises(qr.InputError, match=r"would be quantized a second time.*--allow-requantize"):
        qr.quantize_checkpoint(made.quantized, file, scheme="Q5_0", pre="llama-bpe")
    qr.quantize_checkpoint(made.quantized, file, scheme="Q5_0", pre="llama-bpe", allow_requantize=True)
    expected = logits(made.quantized)
    assert np.abs(logits(file) - expected).max() < 0.2 * np.abs(expected).max()


def change(folder: Path, changes: Callable[[dict[str, np.ndarray]], None]) -> None:
    arrays = load_file(folder / "model.safetensors")
    changes(arrays)
    save_file(arrays, folder / "model.safetensors")


def test_damaged_scales_and_groups_are_named(tmp_path: Path) -> None:
    made, name = make("gptq", tmp_path), "model.layers.1.mlp.up_proj"
    original = (made.quantized / "model.safetensors").read_bytes()
    for suffix, at, value, message in (
        ("g_idx", 7, 9, "g_idx: found group 9 of column 7, expected 0 to 3"),
        ("g_idx", 0, -1, "g_idx: found group -1 of column 0"),
        ("scales", (1, 5), np.inf, "scales: found inf for row 5, group 1"),
        ("scales", (0, 0), np.nan, "scales: found NaN for row 0, group 0"),
    ):
        (made.quantized / "model.safetensors").write_bytes(original)
        change(made.quantized, lambda arrays, key=f"{name}.{suffix}", at=at, value=value: arrays[key].__setitem__(at, value))
        with pytest.raises(qr.FormatError, match=f"{name}.weight: {message}"):
            open_model(made.quantized, pre="llama-bpe")


def test_a_weight_beside_its_own_codes_is_refused(tmp_path: Path) -> None:
    made, name = make("gptq", tmp_path), "model.layers.0.mlp.up_proj.weight"
    change(made.quantized, lambda arrays: arrays.__setitem__(name, np.zeros((4, 4), np.float32)))
    with pytest.raises(qr.FormatError, match=f"{name} is there beside the packed tensors"):
        open_model(made.quantized, pre="llama-bpe")


def test_a_missing_linear_and_a_wrong_shape_are_named(tmp_path: Path) -> None:
    made = make("rows", tmp_path)
    original = (made.quantized / "model.safetensors").read_bytes()

    def without(arrays: dict[str, np.ndarray]) -> None:
        for key in [key for key in arrays if key.startswith("model.layers.0.mlp.up_proj")]:
            del arrays[key]

    change(made.quantized, without)
    with pytest.raises(qr.FormatError, match=r"no tensor model.layers.0.mlp.up_proj.weight"):
        open_model(made.quantized, pre="llama-bpe")
    (made.quantized / "model.safetensors").write_bytes(original)
    change(
        made.quantized,
        lambda arrays: arrays.update({k: v[:64] for k, v in arrays.items() if "1.self_attn.o_proj.weight_" in k and v.ndim > 1}),
    )
    with pytest.raises(qr.FormatError, match=r"o_proj"):
        open_model(made.quantized, pre="llama-bpe")


def test_every_cut_of_the_file_is_a_clean_error(tmp_path: Path) -> None:
    made = make("awq", tmp_path)
    path = made.quantized / "model.safetensors"
    raw = path.read_bytes()
    for length in (0, 7, 100, len(raw) // 2, len(raw) - 1):
        path.write_bytes(raw[:length])
        with pytest.raises(qr.FormatError):
            open_model(made.quantized, pre="llama-bpe")


def test_a_file_that_is_cut_after_it_was_opened_is_an_error(tmp_path: Path) -> None:
    made = make("awq", tmp_path)
    gguf = assembled(made.quantized)
    path = made.quantized / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    (tensor,) = (tensor for tensor in gguf.tensors if tensor.name == "blk.1.ffn_up.weight")
    with pytest.raises(qr.FileError):
        _native.Sources(gguf).read(tensor)


def test_adapters_are_not_added_to_codes(tmp_path: Path) -> None:
    made = make("gptq", tmp_path)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"]}))
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    arrays = {f"{name}.lora_A.weight": np.zeros((2, 128), np.float32), f"{name}.lora_B.weight": np.zeros((128, 2), np.float32)}
    save_file(arrays, adapter / "adapter_model.safetensors")
    with pytest.raises(qr.InputError, match=r"the base model is quantized.*quantrs convert"):
        qr.quantize_checkpoint(made.quantized, tmp_path / "m.gguf", scheme="F16", pre="llama-bpe", lora=[str(adapter)])


def test_a_configuration_alone_is_sized_as_the_model_before(tmp_path: Path) -> None:
    made = make("gptq", tmp_path)
    sizes = size_of_model(made.quantized / "config.json")
    assert any("is of a quantized checkpoint" in notice for notice in sizes.notices)


def test_a_quantized_folder_is_verified(tmp_path: Path) -> None:
    made = make("awq", tmp_path)
    assert verify(made.quantized, pre="llama-bpe").findings == ()
    change(made.quantized, lambda arrays: arrays["model.layers.0.mlp.up_proj.scales"].__setitem__((0, 0), np.inf))
    (finding,) = verify(made.quantized, pre="llama-bpe").findings
    assert "scales: found inf for row 0, group 0" in finding.what


def test_parts_say_where_everything_lies_and_tell_each_other_apart() -> None:
    def part(**changes: object) -> _native.Part:
        arguments: dict[str, object] = {"scales": (0, 64), "scale_type": "F16", "group_size": 32, "bits": 4} | changes
        return _native.Part.packed("rows", (0, 0), 4, **arguments)  # type: ignore[arg-type]

    full = part(zeros="rows", zeros_at=(1, 2), g_idx=(3, 4), divisor=(5, 6))
    assert full.places == [(0, 0), (0, 64), (5, 6), (1, 2), (3, 4)]
    assert (full.is_packed, full.stored, full.source, full.offset, full.n_rows) == (True, "rows", 0, 0, 4)
    assert (
        len(
            {
                repr(p)
                for p in (full, part(), part(bits=3), part(group_size=64), part(scales=(0, 65)), part(n_heads=2, order="halves_to_pairs"))
            }
        )
        == 6
    )
    for arguments, message in (
        ({"scale_type": "I8"}, 'scale_type is "I8"'),
        ({"zeros": "rows"}, 'zeros is "rows"; expected middle, or, with a place'),
        ({"zeros": "middle", "zeros_at": (0, 0)}, 'zeros is "middle"'),
        ({"order": "up"}, 'order is "up"'),
    ):
        with pytest.raises(qr.InputError, match=message):
            part(**arguments)
    with pytest.raises(qr.InputError, match='codes is "diagonal"; expected rows, columns'):
        _native.Part.packed("diagonal", (0, 0), 1, scales=(0, 0), scale_type="F16", group_size=1)
