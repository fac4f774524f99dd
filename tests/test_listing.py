"""The tensors told from a config.json are those of real folders, and add up to the published sizes of known models."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import prod
from pathlib import Path

import pytest

import quantrs as qr
from conftest import GOLDEN, Ran
from quantrs.errors import FormatError, InputError
from quantrs.fitting import SizeRequest
from quantrs.huggingface.config import Config
from quantrs.huggingface.listing import describe, list_tensors
from quantrs.sizing import size_of_model

FOLDERS = sorted(path for path in (GOLDEN / "hf").iterdir() if path.is_dir())


def stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """From the headers of the safetensors files; some goldens hold no more than that."""
    shapes = {}
    for path in (*folder.glob("*.safetensors"), *folder.glob("*.header")):
        data = path.read_bytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        shapes |= {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
    return shapes


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_names_and_shapes_are_those_of_the_folder_that_transformers_wrote(folder: Path) -> None:
    assert list_tensors(Config.read(folder / "config.json")) == stored_shapes(folder)


def sizes(hidden: int, ff: int, layers: int, heads: int, kv_heads: int, vocab: int, **more: object) -> dict[str, object]:
    return {
        "hidden_size": hidden,
        "intermediate_size": ff,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        "max_position_embeddings": 4096,
        "dtype": "bfloat16",
        **more,
    }


PUBLISHED: list[tuple[str, str, int, dict[str, object]]] = [
    ("Llama 3.1 8B", "llama", 8_030_261_248, sizes(4096, 14336, 32, 32, 8, 128_256)),
    ("SmolLM2 135M", "llama", 134_515_008, sizes(576, 1536, 30, 9, 3, 49_152, tie_word_embeddings=True)),
    ("Mistral 7B v0.1", "mistral", 7_241_732_096, sizes(4096, 14336, 32, 32, 8, 32_000)),
    ("Mixtral 8x7B", "mixtral", 46_702_792_704, sizes(4096, 14336, 32, 32, 8, 32_000, num_local_experts=8)),
    ("Qwen2.5 7B", "qwen2", 7_615_616_512, sizes(3584, 18944, 28, 28, 4, 152_064)),
    ("Qwen3 0.6B", "qwen3", 596_049_920, sizes(1024, 3072, 28, 16, 8, 151_936, head_dim=128, tie_word_embeddings=True)),
    (
        "Qwen3 30B A3B",
        "qwen3_moe",
        30_532_122_624,
        sizes(2048, 6144, 48, 32, 4, 151_936, head_dim=128, moe_intermediate_size=768, num_experts=128, num_experts_per_tok=8),
    ),
    (
        "Qwen1.5 MoE A2.7B",
        "qwen2_moe",
        14_315_784_192,
        sizes(
            2048,
            5632,
            24,
            16,
            16,
            151_936,
            moe_intermediate_size=1408,
            shared_expert_intermediate_size=5632,
            num_experts=60,
            num_experts_per_tok=4,
        ),
    ),
    ("Gemma 2B", "gemma", 2_506_172_416, sizes(2048, 16384, 18, 8, 1, 256_000, head_dim=256)),
    ("Gemma 2 2B", "gemma2", 2_614_341_888, sizes(2304, 9216, 26, 8, 4, 256_000, head_dim=256, query_pre_attn_scalar=256)),
    ("Gemma 3 1B", "gemma3_text", 999_885_952, sizes(1152, 6912, 26, 4, 1, 262_144, head_dim=256, query_pre_attn_scalar=256)),
    ("Phi 3 mini", "phi3", 3_821_079_552, sizes(3072, 8192, 32, 32, 32, 32_064)),
    ("OLMo 2 7B", "olmo2", 7_298_617_344, sizes(4096, 11008, 32, 32, 32, 100_352)),
    ("SmolLM3 3B", "smollm3", 3_075_098_624, sizes(2048, 11008, 36, 16, 4, 128_256)),
    ("GPT-2", "gpt2", 124_439_808, {"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "vocab_size": 50_257}),
]


@pytest.mark.parametrize(("name", "model_type", "n_parameters", "values"), PUBLISHED, ids=[row[0] for row in PUBLISHED])
def test_weights_add_up_to_the_count_on_the_models_page(name: str, model_type: str, n_parameters: int, values: dict[str, object]) -> None:
    config = Config({"model_type": model_type, **values}, name)
    assert sum(map(prod, list_tensors(config).values())) == n_parameters


@pytest.mark.parametrize("model_type", ["llama", "granite", "qwen3"])
def test_switches_for_biases_add_them(model_type: str) -> None:
    config = {"model_type": model_type, **sizes(64, 128, 2, 4, 2, 32, head_dim=16)}
    without = list_tensors(Config(config, "c"))
    biased = list_tensors(Config(config | {"attention_bias": True}, "c"))
    added = {name: biased[name] for name in biased.keys() - without.keys()}
    assert added == {f"model.layers.{i}.self_attn.{n}_proj.bias": (32 if n in "kv" else 64,) for i in range(2) for n in "qkvo"}


@pytest.mark.parametrize("folder", [path for path in FOLDERS if any(path.glob("*.safetensors"))], ids=lambda path: path.name)
def test_a_configuration_is_sized_as_its_folder(folder: Path) -> None:
    described, real = (size_of_model(path, SizeRequest(pre="llama-bpe")) for path in (folder / "config.json", folder))
    assert [(row.name, row.weights_bytes, row.total_bytes) for row in described.types] == [
        (row.name, row.weights_bytes, row.total_bytes) for row in real.types
    ]
    assert described.kv_cache == real.kv_cache
    assert described.notices == ()


def test_a_configuration_alone_is_sized_without_its_tokenizer_and_says_so(tmp_path: Path, command: Callable[..., Ran]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **PUBLISHED[0][3]}))
    ran = command("size", tmp_path / "config.json", "--context", "8192", "--vram", "8GiB", "--json")
    assert ran.code == 0, ran.err
    value = json.loads(ran.out)
    rows = {row["name"]: row["weights_bytes"] for row in value["types"]}
    assert round(rows["Q4_K_M"] / 2**30, 2) == 4.58  # GiB, as llama-bench prints it for this model
    assert value["best"] == {"vram": "Q6_K"}
    assert {row["name"]: row["bytes"] for row in value["kv_cache"]}["f16"] == 2 * 2 * 8 * 128 * 32 * 8192
    assert "the tokenizer is not counted" in value["notices"][0]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"model_type": "nosuch"}, InputError, "'model_type' is 'nosuch', expected one of"),
        ({"num_hidden_layers": 10**9}, InputError, "more than any model has"),
        ({"num_hidden_layers": 0}, FormatError, "num_hidden_layers"),
        ({"num_attention_heads": 0}, FormatError, "num_attention_heads"),
        ({"hidden_size": "big"}, FormatError, "hidden_size"),
        ({"vocab_size": -1}, FormatError, "vocab_size"),
        ({"vocab_size": None}, FormatError, "vocab_size"),
        ({"dtype": "int3"}, FormatError, "torch_dtype"),
        ({"vocab_size": 2**31 - 1, "hidden_size": 2**31 - 1}, InputError, "larger than any model"),
    ],
)
def test_configurations_that_cannot_be_are_refused(
    change: dict[str, object], error: type[qr.QuantrsError], words: str, tmp_path: Path
) -> None:
    config = {"model_type": "llama", **sizes(64, 128, 2, 4, 2, 32)} | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(error, match=words):
        describe(tmp_path / "config.json")
