"""Settings for which the reference converter has no key, old and new spellings of the same, scaled rotation, names of models."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import quantrs as qr
from huggingface_folders import assembled, golden_folder, values, write_gguf, write_safetensors
from quantrs import _native
from quantrs.families import graph_of
from quantrs.families.rope_scaling import llama3_factors, llama3_parameters
from quantrs.huggingface import disassemble
from quantrs.huggingface.folder import Folder
from quantrs.huggingface.general_keys import general_keys, name_parts, title


def back(gguf: _native.Gguf, tmp_path: Path) -> dict[str, object]:
    write_gguf(tmp_path / "back.gguf", gguf)
    return disassemble(_native.Gguf.open(tmp_path / "back.gguf"), dtype="BF16").config


def test_weights_of_experts_are_renormalized_as_the_configuration_says(tmp_path: Path) -> None:
    gguf = assembled(golden_folder("tiny-qwen2moe", tmp_path, norm_topk_prob=True))
    assert gguf.get("qwen2moe.expert_weights_norm") is True
    assert graph_of(gguf)[0].blocks[0].ffn.renormalize  # type: ignore[union-attr]
    assert back(gguf, tmp_path)["norm_topk_prob"] is True


def test_windows_of_qwen_begin_at_the_block_that_the_configuration_names(tmp_path: Path) -> None:
    gguf = assembled(golden_folder("tiny-qwen3", tmp_path, use_sliding_window=True, sliding_window=5, max_window_layers=1))
    assert [block.attention.window for block in graph_of(gguf)[0].blocks] == [None, 5]
    config = back(gguf, tmp_path)
    assert (config["use_sliding_window"], config["sliding_window"], config["max_window_layers"]) == (True, 5, 1)


def test_gemma_divides_scores_by_what_the_configuration_says(tmp_path: Path) -> None:
    gguf = assembled(golden_folder("tiny-gemma2", tmp_path, query_pre_attn_scalar=100))
    assert graph_of(gguf)[0].blocks[0].attention.scale == pytest.approx(0.1)
    assert back(gguf, tmp_path)["query_pre_attn_scalar"] == 100


@pytest.mark.parametrize(
    ("name", "config", "windows"),
    [
        ("tiny-gemma3-7l", {"sliding_window_pattern": 3}, [8, 8, None, 8, 8, None, 8]),
        ("tiny-gemma3-7l", {"sliding_window_pattern": 1}, [None] * 7),
        ("tiny-gemma3-7l", {"layer_types": ["full_attention"] * 6 + ["sliding_attention"]}, [None] * 6 + [8]),
        ("tiny-gemma2", {"layer_types": ["full_attention", "sliding_attention", "full_attention"]}, [None, 8, None]),
        ("tiny-gemma2", {}, [8, None, 8]),
        ("tiny-mistral", {"sliding_window": None}, [None, None]),
        ("tiny-mistral", {}, [8, 8]),
    ],
)
def test_blocks_have_the_windows_of_the_configuration(name: str, config: dict, windows: list, tmp_path: Path) -> None:
    gguf = assembled(golden_folder(name, tmp_path, **config))
    assert [block.attention.window for block in graph_of(gguf)[0].blocks] == windows


def test_a_mistral_configuration_that_says_nothing_of_a_window_has_one_of_4096(tmp_path: Path) -> None:
    gguf = assembled(golden_folder("tiny-mistral", tmp_path, without=("sliding_window",)))
    assert gguf.get("llama.attention.sliding_window") == 4096


def test_what_an_old_configuration_leaves_out_is_what_transformers_takes(tmp_path: Path) -> None:
    missing = ("head_dim", "rope_theta", "rms_norm_eps", "num_key_value_heads", "rope_scaling")
    gguf = assembled(golden_folder("tiny-llama3-rope", tmp_path, without=missing[:3]))
    assert gguf.get("llama.attention.key_length") == 32
    assert gguf.get("llama.rope.freq_base") == 10_000.0
    assert gguf.get("llama.attention.layer_norm_rms_epsilon") == pytest.approx(1e-6)


def test_rotation_may_be_said_in_the_newer_way(tmp_path: Path) -> None:
    folder = golden_folder("tiny-llama3-rope", tmp_path, without=("rope_theta", "rope_scaling"))
    config = json.loads((folder / "config.json").read_text())
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    (folder / "config.json").write_text(json.dumps(config | {"rope_parameters": scaling | {"rope_theta": 500_000.0}}))
    gguf = assembled(folder)
    other = tmp_path / "other"
    other.mkdir()
    want = assembled(golden_folder("tiny-llama3-rope", other))
    assert gguf.get("llama.rope.freq_base") == 500_000.0
    assert np.array_equal(values(gguf)["rope_freqs.weight"], values(want)["rope_freqs.weight"])


def test_a_model_with_pictures_gives_its_language_model(tmp_path: Path) -> None:
    folder = golden_folder("tiny-gemma3-7l", tmp_path)
    text = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": text, "vision_config": {"hidden_size": 7}}))
    header = json.loads((folder / "model.safetensors").read_bytes()[8:].split(b"\0", 1)[0])
    tensors = [(f"language_model.{n}", e["dtype"], e["shape"]) for n, e in header.items() if n != "__metadata__"]
    tensors.append(("vision_tower.patch.weight", "BF16", [4, 4]))
    raw, offsets = _native.safetensors_header(tensors, {})
    with (folder / "model.safetensors").open("wb") as file:
        file.write(raw)
        file.truncate(max(o + 2 * math.prod(s) for o, (_, _, s) in zip(offsets, tensors, strict=True)))
    names = {tensor.name for tensor in assembled(folder).tensors}
    assert "blk.6.attn_q_norm.weight" in names
    assert len(names) == len(tensors) - 1


def test_smollm3_is_refused_when_other_blocks_than_every_fourth_are_not_rotated(tmp_path: Path) -> None:
    config = {"model_type": "smollm3", "architectures": ["SmolLM3ForCausalLM"], "head_dim": None}
    gguf = assembled(golden_folder("tiny-granite", tmp_path, **config, no_rope_layers=[1, 1]))
    assert gguf.get("general.architecture") == "smollm3"
    assert back(gguf, tmp_path)["no_rope_layers"] == [1, 1]
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(qr.InputError, match="another pattern than every fourth"):
        assembled(golden_folder("tiny-granite", other, **config, no_rope_layers=[1, 0]))


def test_biases_of_queries_change_places_with_their_rows_both_ways(tmp_path: Path) -> None:
    folder = golden_folder("tiny-llama3-rope", tmp_path)
    arrays = {name: np.zeros(tensor.shape, np.float32) for name, tensor in Folder.open(folder).tensors.items()}
    name = "model.layers.0.self_attn.k_proj"
    arrays[f"{name}.bias"] = np.arange(64, dtype=np.float32)
    arrays[f"{name}.weight"] = np.repeat(np.arange(64, dtype=np.float32)[:, None], 128, axis=1)
    write_safetensors(folder / "model.safetensors", arrays)
    gguf = assembled(folder)
    data = values(gguf)
    assert data["blk.0.attn_k.bias"][:4].tolist() == [0, 16, 1, 17]
    assert np.array_equal(data["blk.0.attn_k.bias"], data["blk.0.attn_k.weight"].reshape(64, 128)[:, 0])
    write_gguf(tmp_path / "m.gguf", gguf)
    returned = values(disassemble(_native.Gguf.open(tmp_path / "m.gguf"), dtype="F32").model)
    assert all(np.array_equal(returned[key], array.reshape(-1)) for key, array in arrays.items())


LONG = {"type": "longrope", "long_factor": [1.5] * 16, "short_factor": [1.0] * 15 + [1.25]}


def test_longrope_becomes_two_tensors_and_a_magnitude_and_comes_back(tmp_path: Path) -> None:
    gguf = assembled(golden_folder("tiny-phi3", tmp_path, max_position_embeddings=16_384, rope_scaling=LONG))
    assert values(gguf)["rope_factors_short.weight"].tolist() == LONG["short_factor"]
    # transformers: sqrt(1 + ln(max / original) / ln(original))
    assert gguf.get("phi3.rope.scaling.attn_factor") == pytest.approx(math.sqrt(1 + math.log(4) / math.log(4096)))
    assert back(gguf, tmp_path)["rope_scaling"] == LONG


def test_longrope_with_the_wrong_number_of_divisors_is_refused(tmp_path: Path) -> None:
    folder = golden_folder("tiny-phi3", tmp_path, rope_scaling=LONG | {"long_factor": [1.5] * 15})
    with pytest.raises(qr.FormatError, match=r"'long_factor' is 'a list of 15', expected one number for each of 16"):
        assembled(folder)


def test_yarn_and_linear_scaling_come_back(tmp_path: Path) -> None:
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 24.0}
    gguf = assembled(golden_folder("tiny-qwen2-yarn", tmp_path, rope_scaling=scaling))
    assert back(gguf, tmp_path)["rope_scaling"] == scaling
    gguf = assembled(golden_folder("tiny-qwen3", tmp_path, rope_scaling={"type": "linear", "factor": 2.5}))
    assert back(gguf, tmp_path)["rope_scaling"] == {"rope_type": "linear", "factor": 2.5}


@pytest.mark.parametrize(
    ("n_dims", "base", "factor", "low", "high", "original"),
    [
        (128, 5e5, 8.0, 1.0, 4.0, 8192),  # Llama 3.1
        (64, 5e5, 32.0, 1.0, 4.0, 8192),  # Llama 3.2 1B
        (128, 5e5, 8.0, 1.0, 4.0, 4096),
        (64, 1e4, 4.0, 2.0, 8.0, 2048),
        (64, 1e4, 16.0, 1.5, 3.0, 777),
    ],
)
def test_parameters_found_from_divisors_give_these_divisors(
    n_dims: int, base: float, factor: float, low: float, high: float, original: int
) -> None:
    factors = llama3_factors(n_dims, base, factor, low, high, original)
    found = llama3_parameters(factors, base, 131_072)
    numbers = [found[k] for k in ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")]
    assert llama3_factors(n_dims, base, *numbers) == pytest.approx(factors, rel=2e-5)  # type: ignore[arg-type]
    if low == 1.0:
        assert numbers == [factor, low, high, original]


def test_divisors_of_no_scaling_are_refused() -> None:
    with pytest.raises(ValueError, match="no Llama 3 scaling"):
        llama3_parameters([1.0, 7.0, 3.0, 2.0], 1e4, 4096)


# What gguf-py's Metadata.get_model_id_components finds (llama.cpp 0c1e57098), for models of so many parameters.
@pytest.mark.parametrize(
    ("name", "n", "want"),
    [
        ("Mistral/Mixtral-8x7B-Instruct-v0.1", 0, ("Mistral", "Mixtral", "Instruct", "v0.1", "8x7B")),
        ("Meta-Llama-3.1-8B-Instruct", 8_030_000_000, (None, "Meta-Llama-3.1", "Instruct", None, "8B")),
        ("Qwen2.5-Coder-7B-Instruct", 7_600_000_000, (None, "Qwen2.5-Coder", "Instruct", None, "7B")),
        ("google/gemma-2-2b-it", 2_600_000_000, ("google", "gemma-2", "it", None, "2B")),
        ("Llama-3-8B-Instruct-64k", 8_030_000_000, (None, "Llama-3", "Instruct-64k", None, "8B")),
        ("SmolLM2-135M", 8_030_000_000, (None, "SmolLM2", "135m", None, None)),
        ("bigscience/bloom-7b1-petals", 0, ("bigscience", "bloom", "petals", None, "7.1B")),
        ("phi-4", 0, (None, "phi", None, "4", None)),
        ("a model of mine", 0, (None, None, None, None, None)),
    ],
)
def test_names_are_taken_apart_as_the_reference_does(name: str, n: int, want: tuple) -> None:
    parts = name_parts(name, n)
    assert (parts.organization, parts.basename, parts.finetune, parts.version, parts.size_label) == want


def test_titles_keep_capitals_and_versions() -> None:
    assert title("tiny-LLaMA-v1.1-chat-7b") == "Tiny LLaMA v1.1 Chat 7b"


def test_the_model_card_and_the_sampling_defaults_go_into_the_file(tmp_path: Path) -> None:
    folder = golden_folder("tiny-qwen3", tmp_path)
    card = """---
license: apache-2.0
base_model: Qwen/Qwen3-8B-Base
tags:
- chat
- "tiny"   
language: [en, de]
widget:
- text: a list of objects
pipeline_tag: text-generation # by task
---
# license: mit
"""
    (folder / "README.md").write_text(card)
    (folder / "generation_config.json").write_text('{"temperature": 0.6, "top_k": 20, "top_p": "wrong", "do_sample": true}')
    found = {key: (value, kind) for key, value, kind in general_keys(Folder.open(folder), "qwen3", {"w": (1000, 1000)})}
    assert found["general.license"] == ("apache-2.0", "string")
    assert found["general.tags"] == (["chat", "tiny", "text-generation"], "array[string]")
    assert found["general.languages"] == (["en", "de"], "array[string]")
    assert found["general.base_model.count"] == (1, "u32")
    assert found["general.base_model.0.name"] == ("Qwen3 8B Base", "string")
    assert found["general.base_model.0.organization"] == ("Qwen", "string")
    assert found["general.base_model.0.repo_url"] == ("https://huggingface.co/Qwen/Qwen3-8B-Base", "string")
    assert found["general.sampling.temp"] == (0.6, "f32")
    assert found["general.sampling.top_k"] == (20, "i32")
    assert "general.sampling.top_p" not in found
