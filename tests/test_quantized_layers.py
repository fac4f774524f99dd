"""Layers of GPTQ, AWQ and compressed-tensors checkpoints against what the tools that invented them wrote. Class: exact."""

import json
import re

import ml_dtypes
import numpy as np
import pytest

from conftest import GOLDEN
from quantized_folders import CHECKPOINTS, LAYER, golden_layer, memory_folder, source_layer
from quantrs import _native
from quantrs.errors import InputError
from quantrs.formats import FORMATS, awq, compressed_tensors, find_quantized, gptq
from quantrs.formats.compressed_config import WeightScheme, quantization_config, read_schemes
from quantrs.formats.float8 import quantize_fp8
from quantrs.formats.layer import read_array
from quantrs.formats.packing import pack_down, pack_nibbles, unpack_down, unpack_nibbles
from quantrs.group_quantized import GroupQuantized, quantize_groups

BF16 = np.dtype(ml_dtypes.bfloat16)
GPTQ_CASES = json.loads((GOLDEN / "gptq" / "packing_index.json").read_text())


@pytest.fixture(scope="module")
def gptq_packing():
    with np.load(GOLDEN / "gptq" / "packing.npz") as arrays:
        return dict(arrays)


def assert_same(found, expected, what):
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape), what
    assert found.tobytes() == expected.tobytes(), what


def random_layer(bits, group_size, *, symmetric=True, n_out=64, n_in=256, seed=0):
    w = np.random.default_rng(seed).standard_normal((n_out, n_in)).astype(np.float32)
    return quantize_groups(w, bits=bits, group_size=group_size, symmetric=symmetric, scale_type="f16")


def unpacked(folder):
    (name,) = (found := find_quantized(folder)).layers
    return FORMATS[found.method].unpack_layer(found.layers[name], lambda tensor: read_array(folder, tensor))


def assert_equal_layers(found, expected):
    for key in ("codes", "scales", "zeros", "g_idx"):
        assert_same(getattr(found, key), getattr(expected, key), key)
    assert (found.bits, found.group_size, found.symmetric) == (expected.bits, expected.group_size, expected.symmetric)


@pytest.mark.parametrize("case", GPTQ_CASES, ids=lambda case: case["key"])
def test_gptq_tensors_are_those_of_gptqmodel(case, gptq_packing):
    golden = {key: gptq_packing[f"{case['key']}.{key}"] for key in ("qint", "scale_f32", "zero", "g_idx", "qweight", "scales")}
    group_size = 256 if case["group_size"] == -1 else case["group_size"]
    q = GroupQuantized(golden["qint"], golden["scale_f32"], golden["zero"], golden["g_idx"], case["bits"], group_size, case["sym"])
    for version in (1, 2):
        tensors = gptq.pack_layer(q, version=version)
        golden["qzeros"] = gptq_packing[f"{case['key']}.qzeros_v{version}"]
        for suffix in ("qweight", "qzeros", "scales", "g_idx"):
            assert_same(tensors[suffix], golden[suffix], f"version {version}, {suffix}")
        config = gptq.quantization_config(
            bits=q.bits, group_size=case["group_size"], symmetric=q.symmetric, desc_act=case["desc_act"], version=version
        )
        back = unpacked(memory_folder({f"m.{suffix}": golden[suffix] for suffix in tensors}, config))
        rounded = GroupQuantized(q.codes, q.scales.astype(np.float16).astype(np.float32), q.zeros, q.g_idx, q.bits, group_size, q.symmetric)
        assert_equal_layers(back, rounded)
    dequantized = gptq_packing.get(f"{case['key']}.dequant")
    assert (dequantized is not None) == (case["group_size"] == 128)
    if dequantized is not None:
        assert_same(back.dequantize().astype(np.float16), dequantized, "dequantized")


@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_awq_tensors_are_those_of_autoawq(group_size):
    with np.load(GOLDEN / "awq" / "packing.npz") as arrays:
        suffixes = ("qweight", "qzeros", "scales", "dequant", "zeros_out_g")
        golden = {suffix: arrays[f"g{group_size}.{suffix}"] for suffix in suffixes}
    tensors = {f"m.{suffix}": golden[suffix] for suffix in ("qweight", "qzeros", "scales")}
    q = unpacked(memory_folder(tensors, awq.quantization_config(group_size=group_size)))
    assert_same(q.zeros, golden["zeros_out_g"], "zeros")
    # The library computes in float16: code minus zero is exact there, the product is rounded once.
    assert_same(q.dequantize().astype(np.float16), golden["dequant"], "dequantized")
    for suffix, array in awq.pack_layer(q).items():
        assert_same(array, golden[suffix], suffix)


def test_compressed_tensors_words_are_those_of_the_library_along_both_axes():
    with np.load(GOLDEN / "compressed_tensors" / "packing.npz") as arrays:
        golden = dict(arrays)
    for key in [key.removesuffix(".q") for key in golden if key.endswith(".q")]:
        bits = int(key.removeprefix("int")[0])
        codes = (golden[f"{key}.q"].astype(np.int16) + (1 << (bits - 1))).astype(np.uint8)
        assert_same(_native.pack_codes(codes, bits), golden[f"{key}.packed_dim1"], key)
        assert_same(pack_down(codes.T, bits), golden[f"{key}.packed_dim0"], key)
        assert_same(np.ascontiguousarray(unpack_down(golden[f"{key}.packed_dim0"], bits, len(codes)).T), codes, key)
    nibbles = unpack_nibbles(golden["fp4.packed"])
    assert_same(compressed_tensors.FP4_VALUES[nibbles], golden["fp4.unpacked"], "fp4")
    assert_same(pack_nibbles(nibbles), golden["fp4.packed"], "fp4")


INC_KEY = re.compile(r"b([48])\.g(-1|\d+)\.(sym|asym)(\.full)?\.qweight")


def test_neural_compressor_zero_points_wrap_instead_of_borrowing():
    with np.load(GOLDEN / "inc" / "woq.npz") as arrays:
        golden = dict(arrays)
    seen = 0
    for match in filter(None, map(INC_KEY.fullmatch, golden)):
        key = match[0].removesuffix(".qweight")
        tensors = {f"m.{suffix}": golden[f"{key}.{suffix}"] for suffix in ("qweight", "qzeros", "scales")}
        tensors["m.scale_bf16_to_fp8"] = np.zeros(1, BF16)
        config = {"quant_method": "gptq", "bits": int(match[1]), "group_size": int(match[2]), "sym": match[3] == "sym"}
        values = unpacked(memory_folder(tensors, config)).dequantize()
        if match[1] == "4" and f"{key}.deq" in golden:
            assert_same(values.astype(np.float16), golden[f"{key}.deq"], key)
        step = golden[f"{key}.scales"].astype(np.float32).max()
        # Symmetric 4-bit codes clip the ends by at most a step and a half; everything else is rounded.
        assert np.abs(values - golden["w"]).max() <= 1.5 * step, key
        seen += 1
    assert seen >= 6


def test_neural_compressor_3_bits_are_refused_by_their_shape():
    with np.load(GOLDEN / "inc" / "woq.npz") as arrays:
        key = next(key.removesuffix(".qweight") for key in arrays.files if key.startswith("b3.") and key.endswith(".qweight"))
        tensors = {f"m.{suffix}": arrays[f"{key}.{suffix}"] for suffix in ("qweight", "qzeros", "scales")}
    with pytest.raises(InputError, match=r"m\.qzeros holds ten codes of 3 bits in each word, as Intel Neural Compressor packs them"):
        find_quantized(memory_folder(tensors, {"quant_method": "gptq", "bits": 3, "group_size": 32, "sym": True}))


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_a_layer_of_a_checkpoint_is_written_as_it_was_read(checkpoint):
    folder = golden_layer(checkpoint)
    found = find_quantized(folder)
    layer = found.layers[LAYER]
    assert set(layer.tensors) == set(folder.tensors)
    content = unpacked(folder)
    if layer.kind in ("fp8", "nvfp4", "mxfp4"):
        source = source_layer().astype(np.float32)
        assert np.abs(content - source).max() < 0.25 * np.abs(source).max()
        return
    tensors = {
        "gptq": lambda: gptq.pack_layer(content),
        "awq": lambda: awq.pack_layer(content),
        "packed": lambda: compressed_tensors.pack_layer(content, read_schemes(folder.config.part("quantization_config"))[0], BF16),
        "int8": lambda: compressed_tensors.pack_layer(content, WeightScheme(format="int-quantized", bits=8), BF16),
    }[layer.kind]()
    assert {f"{LAYER}.{suffix}" for suffix in tensors} == set(folder.tensors)
    for suffix, array in tensors.items():
        assert_same(array, read_array(folder, folder.tensors[f"{LAYER}.{suffix}"]), suffix)


@pytest.mark.parametrize("name", ["w4a16_g128_sym", "w4a16_g32_asym", "w8a8_int", "fp8_dynamic"])
def test_rounding_the_source_gives_the_tensors_of_llm_compressor(name):
    folder = golden_layer(f"compressed_tensors/tiny_llama_{name}")
    (scheme,) = read_schemes(folder.config.part("quantization_config"))
    if scheme.format == "float-quantized":
        tensors = compressed_tensors.pack_fp8(*quantize_fp8(source_layer()))
    else:
        size = scheme.group_size or -1
        q = quantize_groups(source_layer(), bits=scheme.bits, group_size=size, symmetric=scheme.symmetric, rule="minmax", scale_type="bf16")
        tensors = compressed_tensors.pack_layer(q, scheme, BF16)
    for suffix, array in tensors.items():
        assert_same(array, read_array(folder, folder.tensors[f"{LAYER}.{suffix}"]), suffix)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("symmetric", [True, False])
def test_packed_layers_of_every_width_come_back(bits, symmetric):
    q = random_layer(bits, 25, symmetric=symmetric, n_out=7, n_in=75)
    order = np.random.default_rng(1).permutation(75)
    g_idx = np.empty(75, np.int32)
    g_idx[order] = np.arange(75) // 25
    for layer, act_order in ((q, None), (GroupQuantized(q.codes, q.scales, q.zeros, g_idx, bits, 25, symmetric), "group")):
        scheme = WeightScheme(format="pack-quantized", bits=bits, symmetric=symmetric, group_size=25, act_order=act_order)
        tensors = compressed_tensors.pack_layer(layer, scheme, np.dtype(np.float32))
        arrays = {f"m.{suffix}": array for suffix, array in tensors.items()}
        assert_equal_layers(unpacked(memory_folder(arrays, quantization_config({"m": scheme}, ignore=[]))), layer)


def test_signed_bytes_of_zero_points_are_read_as_old_versions_wrote_them():
    q = random_layer(4, 64, symmetric=False)
    scheme = WeightScheme(format="pack-quantized", bits=4, symmetric=False, group_size=64)
    tensors = compressed_tensors.pack_layer(q, scheme, np.dtype(np.float32))
    tensors["weight_zero_point"] = (q.zeros.astype(np.int16) - 8).astype(np.int8)
    config = {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": scheme.weights()}}}
    assert_equal_layers(unpacked(memory_folder({f"m.{suffix}": array for suffix, array in tensors.items()}, config)), q)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_one_scale_for_a_whole_tensor(shape):
    codes = np.random.default_rng(0).integers(-127, 128, (6, 40), dtype=np.int8)
    scheme = WeightScheme(format="int-quantized", bits=8, per_tensor=True)
    config = {"quant_method": "compressed-tensors", "config_groups": {"a": {"format": "int-quantized", "weights": scheme.weights()}}}
    values = unpacked(memory_folder({"m.weight": codes, "m.weight_scale": np.full(shape, 0.5, np.float32)}, config))
    assert np.array_equal(values, codes * np.float32(0.5))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("shape", [(128, 256), (130, 200), (5, 300)])
def test_float8_blocks_share_the_scale_of_their_largest_weight(dtype, shape):
    w = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    codes, scales = quantize_fp8(w, block=(128, 128))
    assert scales.dtype == w.dtype
    assert scales.shape == (-(-shape[0] // 128), -(-shape[1] // 128))
    for i, j in np.ndindex(scales.shape):
        part = w[128 * i : 128 * (i + 1), 128 * j : 128 * (j + 1)]
        scale = (np.abs(part.astype(np.float32)).max() / np.float32(448)).astype(w.dtype)
        assert scale == scales[i, j]
        ratio = (part.astype(np.float32) / scale.astype(np.float32)).astype(w.dtype).astype(np.float32)
        expected = np.clip(ratio, -448, 448).astype(ml_dtypes.float8_e4m3fn)
        assert_same(np.ascontiguousarray(codes[128 * i : 128 * (i + 1), 128 * j : 128 * (j + 1)]), expected, (i, j))
    scheme = WeightScheme(format="float-quantized", bits=8, block=(128, 128))
    config = {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {"a": {"weights": scheme.weights()}}}
    arrays = {f"m.{suffix}": array for suffix, array in compressed_tensors.pack_fp8(codes, scales).items()}
    values = unpacked(memory_folder(arrays, config))
    # Half of float8's last step, 16 of 448; half of bfloat16's own step there, 1; and the scale's rounding, 2^-8 of both.
    assert np.abs(values - w.astype(np.float32)).max() <= np.abs(w.astype(np.float32)).max() * (17 / 448) * (1 + 2**-8)


def test_float8_of_zeros_has_the_smallest_step_as_scale_and_nan_is_refused():
    codes, scales = quantize_fp8(np.zeros((2, 3), ml_dtypes.bfloat16))
    assert np.array_equal(scales.astype(np.float32), np.full((2, 1), 2.0**-7, np.float32))
    assert not codes.astype(np.float32).any()
    w = np.zeros((300, 4), np.float32)
    w[299, 2] = np.nan
    with pytest.raises(InputError, match=r"q_proj: row 299, column 2 is nan"):
        quantize_fp8(w, name="q_proj")
