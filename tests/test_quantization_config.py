"""``quantization_config`` as the tools write it, and what is read from it."""

import json
import re

import numpy as np
import pytest

from conftest import GOLDEN
from quantized_folders import memory_folder
from quantrs.errors import FormatError, InputError
from quantrs.formats import FORMATS, awq, compressed_config, compressed_tensors, find_quantized, gptq
from quantrs.formats.compressed_config import WeightScheme, read_schemes
from quantrs.group_quantized import quantize_groups
from quantrs.huggingface.config import Config
from quantrs.huggingface.folder import Folder


def golden(checkpoint):
    return json.loads((GOLDEN / checkpoint / "config.json").read_text())["quantization_config"]


def layer(bits=4, group_size=32, *, symmetric=True, n_out=64, n_in=128):
    w = np.random.default_rng(0).standard_normal((n_out, n_in)).astype(np.float32)
    return quantize_groups(w, bits=bits, group_size=group_size, symmetric=symmetric, scale_type="f16")


def gptq_tensors(name, q, version=1):
    return {f"{name}.{suffix}": array for suffix, array in gptq.pack_layer(q, version=version).items()}


@pytest.mark.parametrize(
    ("checkpoint", "settings"),
    [
        ("gptq/tiny_llama_w4g64_sym", {"group_size": 64, "symmetric": True, "desc_act": False}),
        ("gptq/tiny_llama_w4g32_asym_act", {"group_size": 32, "symmetric": False, "desc_act": True}),
    ],
)
def test_gptq_has_the_keys_of_gptqmodel(checkpoint, settings):
    found, expected = gptq.quantization_config(bits=4, **settings), golden(checkpoint)
    meta, their_meta = found.pop("meta"), expected.pop("meta")
    assert found == expected
    meta.pop("quantizer")
    assert meta == {key: their_meta[key] for key in meta}


def test_awq_equals_autoawq():
    assert awq.quantization_config(group_size=64) == golden("awq/tiny_llama_w4g64")


@pytest.mark.parametrize("checkpoint", sorted(path.name for path in (GOLDEN / "compressed_tensors").glob("tiny_llama_*")))
def test_compressed_tensors_equals_llm_compressor(checkpoint):
    expected = golden(f"compressed_tensors/{checkpoint}")
    (scheme,) = read_schemes(Config(expected, "config.json"))
    layers = {f"model.layers.{i}.mlp.up_proj": scheme for i in range(2)}
    assert compressed_config.quantization_config(layers, ignore=["lm_head"]) == expected


def test_old_spellings_of_awq_are_read_from_their_own_file(tmp_path):
    q = layer(symmetric=False)
    folder = memory_folder({f"m.{suffix}": array for suffix, array in awq.pack_layer(q).items()}, {})
    (tmp_path / "quant_config.json").write_text('{"w_bit": 4, "q_group_size": 32, "zero_point": true, "version": "GEMM"}')
    found = find_quantized(Folder(tmp_path, folder.tensors, folder.sources, Config({}, "config.json")))
    assert (found.method, found.layers["m"].group_size) == ("awq", 32)


def test_gptq_settings_are_read_from_quantize_config_json(tmp_path):
    folder = memory_folder(gptq_tensors("m", layer()), {})
    (tmp_path / "quantize_config.json").write_text('{"bits": 4, "group_size": 32, "desc_act": false, "sym": true, "damp_percent": 0.01}')
    found = find_quantized(Folder(tmp_path, folder.tensors, folder.sources, Config({}, "config.json")))
    assert (found.method, found.layers["m"].zero_offset) == ("gptq", 1)


def test_a_folder_that_is_not_quantized_has_no_quantized_layers(tmp_path):
    assert find_quantized(Folder(tmp_path, {}, [], Config({"model_type": "llama"}, "config.json"))) is None
    assert find_quantized(Folder(tmp_path, {}, [])) is None


def test_gptq_rules_of_layers_are_read_back_and_match_as_gptqmodel_matches():
    rules = {"a.x": gptq.LayerRule(bits=8, group_size=64), "a.y": gptq.LayerRule()}
    config = gptq.quantization_config(bits=4, group_size=32, symmetric=True, desc_act=False, rules=rules)
    patterns = list(config["dynamic"])
    assert [pattern[:2] for pattern in patterns] == ["+:", "-:"]
    assert re.match(patterns[0][2:], "a.x")
    assert not re.match(patterns[0][2:], "a.xx")
    tensors = gptq_tensors("a.x", layer(8, 64)) | gptq_tensors("a.z", layer()) | {"a.y.weight": np.zeros((4, 4), np.float32)}
    found = find_quantized(memory_folder(tensors, config)).layers
    assert {name: (layer.bits, layer.group_size) for name, layer in found.items()} == {"a.x": (8, 64), "a.z": (4, 32)}


def test_version_1_without_symmetry_is_marked_as_gptqmodel_demands():
    def tools(**settings):
        return gptq.quantization_config(bits=4, group_size=32, desc_act=False, **settings)["meta"]["quantizer"]

    assert [tool.partition(":")[0] for tool in tools(symmetric=False)] == ["quantrs", "gptqmodel"]
    assert [tool.partition(":")[0] for tool in tools(symmetric=True)] == ["quantrs"]
    assert [tool.partition(":")[0] for tool in tools(symmetric=False, version=2)] == ["quantrs"]


def test_groups_of_different_schemes_name_their_layers():
    four = WeightScheme(format="pack-quantized", bits=4, group_size=32)
    eight = WeightScheme(format="int-quantized", bits=8)
    config = compressed_config.quantization_config({"a.q": four, "a.k": eight, "b.q": four}, ignore=["lm_head"])
    assert config["format"] == "mixed-precision"
    groups = config["config_groups"]
    assert [groups[name]["targets"] for name in groups] == [["a.q", "b.q"], ["a.k"]]
    tensors = {}
    for name, scheme in {"a.q": four, "a.k": eight, "b.q": four}.items():
        q = layer(scheme.bits, scheme.group_size or -1)
        packed = compressed_tensors.pack_layer(q, scheme, np.dtype(np.float32))
        tensors |= {f"{name}.{suffix}": array for suffix, array in packed.items()}
    tensors["a.k_scale"] = np.ones(1, np.float32)
    tensors["a.q.input_scale"] = np.ones(1, np.float32)
    found = find_quantized(memory_folder(tensors, config))
    assert {name: (layer.kind, layer.group_size) for name, layer in found.layers.items()} == {
        "a.q": ("packed", 32),
        "a.k": ("int8", 128),
        "b.q": ("packed", 32),
    }
    assert found.others == ("a.k_scale",)
    assert found.layers["a.q"].others == ("a.q.weight_shape", "a.q.input_scale")


def test_formats_are_a_table_by_quant_method():
    assert list(FORMATS) == sorted(FORMATS)
    assert all(format_.method == name for name, format_ in FORMATS.items())


def weights(**changed):
    return WeightScheme(format="pack-quantized", bits=4, group_size=32).weights() | changed


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"quant_method": "bitsandbytes"}, r"quant_method 'bitsandbytes'\), which cannot be read; expected one of awq, compressed-"),
        ({"quant_method": 4}, r"'quant_method' is 4, expected a string"),
        ({"quant_method": "gptq"}, "'bits' is missing"),
        ({"quant_method": "gptq", "bits": 5}, "'bits' is 5, expected 2, 3, 4 or 8"),
        ({"quant_method": "gptq", "bits": 10**30}, "'bits' is 1000"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 2**40}, "'group_size' is"),
        ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, "layout 'marlin' cannot be read"),
        ({"quant_method": "gptq", "bits": 4, "is_marlin_format": True}, "layout 'marlin' cannot be read"),
        ({"quant_method": "gptq", "bits": 4, "pack_dtype": "int16"}, "packed in 'int16'"),
        ({"quant_method": "gptq", "bits": 4, "dynamic": {"(a+)+$": {"bits": 7}}}, r"'bits' is 7, expected 2, 3, 4 or 8"),
        ({"quant_method": "gptq", "bits": 4, "dynamic": {"x": 3}}, "'x' is 3, expected an object"),
        ({"quant_method": "gptq", "bits": 4, "dynamic": []}, r"'dynamic' is \[\], expected an object"),
        ({"quant_method": "gptq", "bits": 4}, r"no tensor is called \*.qweight"),
        ({"quant_method": "awq", "bits": 3, "group_size": 32}, "'bits' is 3, expected 4"),
        ({"quant_method": "awq", "bits": 4}, "'group_size' is missing"),
        ({"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemv"}, "layout 'gemv' cannot be read"),
        ({"quant_method": "awq", "bits": 4, "group_size": 32}, r"no tensor is called \*.qweight"),
        ({"quant_method": "compressed-tensors"}, "'config_groups' is missing"),
        ({"quant_method": "compressed-tensors", "config_groups": {}}, r"'config_groups' is \{\}"),
        ({"quant_method": "compressed-tensors", "config_groups": {"a": 1}}, "'a' is 1, expected an object"),
        ({"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": weights(num_bits=9)}}}, "'num_bits' is 9"),
        ({"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": weights(type="float")}}}, "'type' is 'float'"),
        ({"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": weights(group_size=0)}}}, "'group_size' is 0"),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": weights(strategy="block", block_structure=[0, 1])}}},
            "'block_structure' is",
        ),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": weights(strategy="block")}}},
            "'block_structure' is missing",
        ),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"a": {"format": "marlin-24", "weights": weights()}}},
            "stored as 'marlin-24', which cannot be read",
        ),
        (
            {"quant_method": "compressed-tensors", "sparsity_config": {"format": "sparse-24"}, "config_groups": {}},
            "weights are sparse",
        ),
        (
            {"quant_method": "compressed-tensors", "transform_config": {"config_groups": {"R1": {}}}, "config_groups": {}},
            "'transform_config' rotates activations",
        ),
        (
            {"quant_method": "gptq", "bits": 4, "dynamic": {str(i): {"group_size": i} for i in range(1, 100)}},
            "'dynamic' is '100 different group sizes', expected at most 64",
        ),
        (
            {"quant_method": "compressed-tensors", "config_groups": {str(i): {"weights": weights(group_size=i)} for i in range(1, 100)}},
            "'config_groups' is '99 different schemes', expected at most 64",
        ),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": weights()}}},
            r"no tensor is called \*.weight_packed or \*.weight_scale",
        ),
    ],
)
def test_configurations_that_cannot_be_are_refused(config, message):
    with pytest.raises((FormatError, InputError), match=message):
        find_quantized(memory_folder({"m.weight": np.zeros((2, 2), np.float32)}, config))


def test_what_a_format_cannot_hold_is_refused_before_the_work():
    with pytest.raises(InputError, match="a: GPTQ files hold 2, 3, 4 or 8 bits, not 5"):
        gptq.check_shape("a", 64, 64, bits=5, group_size=-1)
    with pytest.raises(InputError, match="a: out_features 40 is not a multiple of 32, which 3-bit GPTQ packs together"):
        gptq.check_shape("a", 40, 64, bits=3, group_size=-1)
    gptq.check_shape("a", 40, 64, bits=4, group_size=32)
    for check in (gptq.check_shape, awq.check_shape):
        for size in (0, -2, 100):
            with pytest.raises(InputError, match=f"a: in_features 64 is not a multiple of the group size {size}"):
                check("a", 64, 64, bits=4, group_size=size)
    with pytest.raises(InputError, match="a: AWQ files hold 4 bits, not 3"):
        awq.check_shape("a", 64, 64, bits=3, group_size=-1)
    with pytest.raises(InputError, match="a: out_features 12 is not a multiple of 8"):
        awq.check_shape("a", 12, 64, bits=4, group_size=-1)
    with pytest.raises(InputError, match="a: in_features 64 is not a multiple of the group size 48"):
        compressed_tensors.check_shape("a", 64, bits=4, group_size=48)
    with pytest.raises(InputError, match="a: compressed-tensors files hold 2 to 8 bits, not 17"):
        compressed_tensors.check_shape("a", 64, bits=17, group_size=-1)
