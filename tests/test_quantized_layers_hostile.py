"""Layers whose tensors do not fit together: a clean error that names the tensor, never a crash or memory beyond what the file has."""

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantized_folders import memory_folder
from quantrs.errors import FormatError, InputError
from quantrs.formats import FORMATS, awq, compressed_tensors, find_quantized, gptq
from quantrs.formats.compressed_config import WeightScheme, quantization_config
from quantrs.formats.layer import read_array
from quantrs.group_quantized import GroupQuantized, quantize_groups

N_OUT, N_IN = 64, 128


def integers(bits=4, group_size=32, *, symmetric=False):
    w = np.random.default_rng(0).standard_normal((N_OUT, N_IN)).astype(np.float32)
    return quantize_groups(w, bits=bits, group_size=group_size, symmetric=symmetric, scale_type="f16")


def gptq_case(bits):
    return gptq.pack_layer(integers(bits)), gptq.quantization_config(bits=bits, group_size=32, symmetric=False, desc_act=True)


def compressed_case(scheme):
    config = quantization_config({"m": scheme}, ignore=[])
    if scheme.format in ("pack-quantized", "int-quantized"):
        q = integers(scheme.bits, scheme.group_size or -1, symmetric=scheme.symmetric)
        return compressed_tensors.pack_layer(q, scheme, np.dtype(np.float32)), config
    if scheme.format == "float-quantized":
        scales = np.ones((1, 1) if scheme.block else (N_OUT, 1), np.float32)
        return {"weight": np.zeros((N_OUT, N_IN), ml_dtypes.float8_e4m3fn), "weight_scale": scales}, config
    packed = {"weight_packed": np.zeros((N_OUT, N_IN // 2), np.uint8)}
    if scheme.format == "mxfp4-pack-quantized":
        return packed | {"weight_scale": np.full((N_OUT, N_IN // 32), 127, np.uint8)}, config
    scales = {"weight_scale": np.ones((N_OUT, N_IN // 16), ml_dtypes.float8_e4m3fn), "weight_global_scale": np.ones(1, np.float32)}
    return packed | scales, config


CASES = {
    "gptq3": gptq_case(3),
    "gptq4": gptq_case(4),
    "awq": (awq.pack_layer(integers()), awq.quantization_config(group_size=32)),
    "packed": compressed_case(WeightScheme(format="pack-quantized", bits=5, symmetric=False, group_size=32, act_order="group")),
    "int8": compressed_case(WeightScheme(format="int-quantized", bits=8)),
    "fp8": compressed_case(WeightScheme(format="float-quantized", bits=8)),
    "fp8_blocks": compressed_case(WeightScheme(format="float-quantized", bits=8, block=(128, 128))),
    "nvfp4": compressed_case(WeightScheme(format="nvfp4-pack-quantized", bits=4, group_size=16)),
    "mxfp4": compressed_case(WeightScheme(format="mxfp4-pack-quantized", bits=4, group_size=32)),
}
OPTIONAL = {"g_idx"}


def find(tensors, config):
    folder = memory_folder({f"m.{suffix}": array for suffix, array in tensors.items()}, config)
    return folder, find_quantized(folder)


def unpack(tensors, config):
    folder, found = find(tensors, config)
    return FORMATS[found.method].unpack_layer(found.layers["m"], lambda tensor: read_array(folder, tensor))


@pytest.mark.parametrize("case", CASES)
def test_the_unharmed_layer_is_read(case):
    tensors, config = CASES[case]
    content = unpack(tensors, config)
    assert (content.dequantize() if isinstance(content, GroupQuantized) else content).shape == (N_OUT, N_IN)


@pytest.mark.parametrize(("case", "suffix"), [(case, suffix) for case, (tensors, _) in CASES.items() for suffix in tensors])
def test_a_missing_tensor_is_an_error_that_names_the_layer(case, suffix):
    tensors, config = CASES[case]
    rest = {key: array for key, array in tensors.items() if key != suffix}
    if suffix in OPTIONAL:
        find(rest, config)
        return
    with pytest.raises((FormatError, InputError), match=r"folder: m\.|no tensor is called"):
        find(rest, config)


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.uint8])
@pytest.mark.parametrize(("case", "suffix"), [(case, suffix) for case, (tensors, _) in CASES.items() for suffix in tensors])
def test_a_tensor_of_another_type_is_an_error_or_means_the_same(case, suffix, dtype):
    tensors, config = CASES[case]
    if tensors[suffix].dtype == dtype or ("scale" in suffix and dtype == np.float32) or (suffix == "weight_shape" and dtype == np.int64):
        return
    with np.errstate(invalid="ignore"):
        changed = tensors | {suffix: tensors[suffix].astype(dtype)}
    with pytest.raises((FormatError, InputError), match=r"folder: m\."):
        find(changed, config)


@settings(deadline=None, max_examples=400)
@given(st.data())
def test_any_change_of_shapes_is_an_error_or_a_layer_that_can_be_read(data):
    tensors, config = CASES[data.draw(st.sampled_from(sorted(CASES)))]
    changed = dict(tensors)
    for suffix in data.draw(st.lists(st.sampled_from(sorted(tensors)), min_size=1, max_size=2, unique=True)):
        shape = tuple(data.draw(st.lists(st.sampled_from([0, 1, 2, 3, 4, 8, 12, 16, 32, 64, 65, 128]), max_size=3)))
        changed[suffix] = np.resize(tensors[suffix], shape)
    try:
        content = unpack(changed, config)
    except (FormatError, InputError) as error:
        assert "m." in str(error) or "no tensor is called" in str(error)  # noqa: PT017  # which one is raised depends on the change
        return
    values = content.dequantize() if isinstance(content, GroupQuantized) else content
    assert values.size <= 32 * sum(array.nbytes for array in changed.values())


@pytest.mark.parametrize("group", [-1, 4, 2**31 - 1])
@pytest.mark.parametrize(("case", "suffix"), [("gptq4", "g_idx"), ("packed", "weight_g_idx")])
def test_a_channel_of_no_group_is_named(case, suffix, group):
    tensors, config = CASES[case]
    g_idx = tensors[suffix].copy()
    g_idx[77] = group
    with pytest.raises(FormatError, match=rf"m\.{suffix}: value {group} at 77, expected a group of 0 to 3"):
        unpack(tensors | {suffix: g_idx}, config)


@pytest.mark.parametrize("shape", [[0, 128], [64, -1], [64, 2**62], [64, 0], [65, 128], [64, 134]])
def test_a_weight_shape_that_the_words_do_not_have_is_refused(shape):
    tensors, config = CASES["packed"]
    with pytest.raises(FormatError, match=r"folder: m\.weight_(shape|packed)"):
        find(tensors | {"weight_shape": np.array(shape, np.int64)}, config)


def test_an_unquantized_weight_with_a_scale_is_refused():
    with pytest.raises(FormatError, match=r"m\.weight: found F32 of shape \[64, 128\], expected I8 or F8_E4M3 of shape \[any, any\]"):
        find({"weight": np.zeros((64, 128), np.float32), "weight_scale": np.ones((64, 1), np.float32)}, CASES["int8"][1])


def test_codes_of_another_format_than_the_configuration_says_are_refused():
    with pytest.raises(FormatError, match=r"m\.weight: found I8 of shape \[64, 128\], expected what config.json says, float-quantized"):
        find(CASES["int8"][0], CASES["fp8"][1])
    with pytest.raises(FormatError, match=r"m\.qzeros: found I32 of shape \[4, 6\], expected I32 of shape \[4, 8\] for 4 bits"):
        find(CASES["gptq3"][0], CASES["gptq4"][1])


def test_scales_beyond_float16_are_refused_when_they_are_written():
    q = integers()
    q = replace(q, scales=np.where(np.arange(4) == 2, np.float32(1e5), q.scales))
    for pack in (gptq.pack_layer, awq.pack_layer):
        with pytest.raises(InputError, match="q_proj: the scale of row 0, group 2 is 100000, which float16 cannot hold"):
            pack(q, name="q_proj")


def test_layers_that_do_not_fit_their_scheme_are_refused_when_they_are_written():
    q = integers()
    order = np.random.default_rng(0).permutation(N_IN)
    act_order = replace(q, g_idx=q.g_idx[order])
    with pytest.raises(InputError, match="m: its groups are in activation order, which AWQ files cannot hold"):
        awq.pack_layer(act_order, name="m")
    with pytest.raises(InputError, match="m: a code or zero point is larger than 15"):
        awq.pack_layer(replace(q, codes=q.codes + np.uint8(16)), name="m")
    scheme = WeightScheme(format="pack-quantized", bits=4, symmetric=False, group_size=32)
    with pytest.raises(InputError, match="m: its groups are in activation order, but the scheme's act_order is not 'group'"):
        compressed_tensors.pack_layer(act_order, scheme, np.dtype(np.float32), name="m")
    with pytest.raises(InputError, match="m: found 4 bits, symmetric: False, expected 8 bits, symmetric: True"):
        compressed_tensors.pack_layer(q, WeightScheme(format="int-quantized", bits=8), np.dtype(np.float32), name="m")
    with pytest.raises(InputError, match="m: int-quantized holds 8 bits, symmetric"):
        compressed_tensors.pack_layer(q, replace(scheme, format="int-quantized"), np.dtype(np.float32), name="m")
    with pytest.raises(InputError, match="m: integers cannot be written as float-quantized"):
        compressed_tensors.pack_layer(q, replace(scheme, format="float-quantized"), np.dtype(np.float32), name="m")
