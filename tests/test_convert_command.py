"""Between GGUF files and checkpoint folders, from weights in memory, and with adapters: as commands and calls."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import quantrs as qr
from conftest import Ran, run_python
from family_models import MODELS, TOKENS
from huggingface_folders import HF, golden_folder, write_safetensors
from quantrs import _native
from quantrs.errors import FileError, InputError, UsageError
from quantrs.families import graph_of
from quantrs.huggingface import Folder, assemble

LLAMA = HF / "tiny-llama3-rope"
PRE = ("--pre", "llama-bpe")


def quantrs(*args: str | Path) -> Ran:
    return run_python("-m", "quantrs", *args)


def tensors(path: Path) -> dict[str, np.ndarray]:
    with qr.open(path) as model:
        return {name: tensor.dequantize() for name, tensor in model.tensors.items()}


def stored(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of a folder in float32, read without quantrs."""
    dtypes = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype(ml_dtypes.bfloat16)}
    out = {}
    for path in folder.glob("*.safetensors"):
        data = path.read_bytes()
        (n,) = struct.unpack("<Q", data[:8])
        for name, entry in json.loads(data[8 : 8 + n]).items():
            if name != "__metadata__":
                a, b = entry["data_offsets"]
                flat = np.frombuffer(data[8 + n + a : 8 + n + b], dtypes[entry["dtype"]])
                out[name] = flat.reshape(entry["shape"]).astype(np.float32)
    return out


def state_of(folder: Path) -> dict[str, np.ndarray]:
    return {name: array.astype(ml_dtypes.bfloat16) for name, array in stored(folder).items()}


@pytest.mark.parametrize("name", ["llama", "mixtral", "qwen3", "smollm3"])
def test_a_gguf_file_that_names_no_base_of_the_rotation_is_rotated_as_before(name: str, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(MODELS[name].to_bytes())
    qr.convert(tmp_path / "m.gguf", tmp_path / "folder", to="F32")
    logits = []
    for model in (_native.Gguf.open(tmp_path / "m.gguf"), assemble(Folder.open(tmp_path / "folder"), with_tokenizer=False)):
        graph, n_ctx = graph_of(model)
        logits.append(_native.Engine.load(model, graph.to_json(), n_ctx=n_ctx).forward(TOKENS, "all"))
    assert np.array_equal(*logits)


def test_a_folder_comes_back_from_a_gguf_file_with_the_same_values_and_text(tmp_path: Path) -> None:
    assert quantrs("convert", LLAMA, tmp_path / "m.gguf", *PRE).code == 0
    ran = quantrs("convert", tmp_path / "m.gguf", tmp_path / "again")
    assert ran.code == 0
    first, again = stored(LLAMA), stored(tmp_path / "again")
    assert first.keys() == again.keys()
    assert all(np.array_equal(first[name], again[name]) for name in first)
    text = "naïve café 12345\n\n  日本語 🙂"
    assert qr.Session(LLAMA).tokenize(text) == qr.Session(tmp_path / "again").tokenize(text)
    ids = [1, 5, 9, 200]
    assert np.array_equal(qr.Session(LLAMA).logits(ids), qr.Session(tmp_path / "again").logits(ids))


def test_a_gguf_file_of_f16_comes_back_from_a_folder_bit_for_bit(tmp_path: Path) -> None:
    qr.convert(LLAMA, tmp_path / "a.gguf", to="F16", pre="llama-bpe")
    qr.convert(tmp_path / "a.gguf", tmp_path / "folder")
    qr.convert(tmp_path / "folder", tmp_path / "b.gguf", pre="llama-bpe")
    with qr.open(tmp_path / "a.gguf") as a, qr.open(tmp_path / "b.gguf") as b:
        assert list(a.tensors) == list(b.tensors)
        for name in a.tensors:
            assert (a.tensors[name].type, a.tensors[name].shape) == (b.tensors[name].type, b.tensors[name].shape)
            assert np.array_equal(a.tensors[name].data, b.tensors[name].data)


def test_shards_are_cut_by_size_and_listed(tmp_path: Path) -> None:
    qr.convert(LLAMA, tmp_path / "m.gguf", pre="llama-bpe")
    ran = quantrs("convert", tmp_path / "m.gguf", tmp_path / "again", "--max-shard-size", "200kB", "--json")
    assert ran.code == 0
    files = sorted((tmp_path / "again").glob("*.safetensors"))
    assert len(files) > 2
    assert [str(file) for file in files] == json.loads(ran.out)["files"]
    index = json.loads((tmp_path / "again" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {file.name for file in files}
    assert all(file.stat().st_size < 210_000 for file in files)
    assert stored(tmp_path / "again").keys() == index["weight_map"].keys()
    assert np.array_equal(qr.Session(tmp_path / "again").logits([3, 4]), qr.Session(LLAMA).logits([3, 4]))


def test_a_quantized_file_becomes_floats(tmp_path: Path) -> None:
    qr.quantize_checkpoint(LLAMA, tmp_path / "q.gguf", scheme="Q8_0", pre="llama-bpe")
    qr.convert(tmp_path / "q.gguf", tmp_path / "again", to="F32")
    want = tensors(tmp_path / "q.gguf")["blk.0.ffn_up.weight"]
    assert np.array_equal(stored(tmp_path / "again")["model.layers.0.mlp.up_proj.weight"], want)


def test_one_pass_equals_two_steps(tmp_path: Path) -> None:
    qr.convert(LLAMA, tmp_path / "bf16.gguf", pre="llama-bpe")
    qr.quantize_checkpoint(tmp_path / "bf16.gguf", tmp_path / "two.gguf", scheme="Q4_0")
    qr.quantize_checkpoint(LLAMA, tmp_path / "one.gguf", scheme="Q4_0", pre="llama-bpe")
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()


def test_what_is_there_is_not_replaced_without_force_nor_mixed_with_it(tmp_path: Path) -> None:
    qr.convert(LLAMA, tmp_path / "m.gguf", pre="llama-bpe")
    folder = tmp_path / "again"
    qr.convert(tmp_path / "m.gguf", folder)
    before = (folder / "model.safetensors").read_bytes()
    ran = quantrs("convert", tmp_path / "m.gguf", folder)
    assert ran.code == 1
    assert "exists already" in ran.err
    assert (folder / "model.safetensors").read_bytes() == before
    assert quantrs("convert", tmp_path / "m.gguf", folder, "--force").code == 0
    ran = quantrs("convert", tmp_path / "m.gguf", folder, "--force", "--max-shard-size", "200kB")
    assert ran.code == 1
    assert "model.safetensors: belongs to another model" in ran.err
    assert not [path.name for path in folder.iterdir() if "quantrs" in path.name]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("{folder}", "{tmp}/other"), "is a checkpoint folder already"),
        (("{tmp}/pytorch_model.bin", "{tmp}/m.gguf"), "are pickles"),
        (("{tmp}/absent/model", "{tmp}/m.gguf"), "no such file"),
        (("{folder}", "{tmp}/absent/m.gguf", *PRE), "there is no folder"),
        (("{folder}", "{tmp}/m.gguf", "--base", "{folder}"), "--base is for adapters"),
        (("{folder}", "{tmp}/m.gguf", "--lora", "{tmp}/absent", *PRE), "adapter_model.safetensors"),
    ],
)
def test_a_refusal_says_what_to_do_and_leaves_nothing(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    ran = quantrs("convert", *(text.format(folder=LLAMA, tmp=tmp_path) for text in arguments))
    assert ran.code in (1, 2)
    assert words in ran.err.lower() or words in ran.err
    assert "Traceback" not in ran.err
    assert list(tmp_path.iterdir()) == []


def test_a_name_on_the_hub_needs_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileError, match=r"pip install 'quantrs-llm\[hub\]'"):
        qr.quantize_checkpoint("someone/some-model", tmp_path / "m.gguf", scheme="Q8_0")


def test_a_name_on_the_hub_is_fetched_into_its_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Hub:
        @staticmethod
        def snapshot_download(name: str, allow_patterns: list[str]) -> str:
            assert name == "someone/some-model"
            assert "*.safetensors" in allow_patterns
            assert not any(pattern.endswith((".bin", ".pt")) for pattern in allow_patterns)
            return str(LLAMA)

    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", Hub)
    monkeypatch.chdir(tmp_path)
    qr.quantize_checkpoint("someone/some-model", tmp_path / "a.gguf", scheme="Q8_0", pre="llama-bpe")
    qr.quantize_checkpoint(LLAMA, tmp_path / "b.gguf", scheme="Q8_0", pre="llama-bpe")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_weights_in_memory_give_the_file_that_their_folder_gives(tmp_path: Path) -> None:
    config = json.loads((LLAMA / "config.json").read_text())
    state = state_of(LLAMA)
    report = qr.export_gguf(state, config, LLAMA, tmp_path / "a.gguf", scheme="Q8_0", pre="llama-bpe")
    assert report.file_type == "Q8_0"
    qr.quantize_checkpoint(LLAMA, tmp_path / "b.gguf", scheme="Q8_0", pre="llama-bpe")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()

    # An iterator, other memory layouts, and both ends of a tie.
    name = "model.layers.0.mlp.up_proj.weight"
    state[name] = np.asfortranarray(state[name])
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    qr.export_gguf(iter(state.items()), config, LLAMA, tmp_path / "c.gguf", scheme="Q8_0", pre="llama-bpe")
    assert (tmp_path / "c.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


class Lent:
    """An array that shows itself through one protocol alone."""

    def __init__(self, array: np.ndarray, protocol: str) -> None:
        if protocol == "array":
            self.__class__ = type("Lent", (), {"__array__": lambda self, dtype=None, copy=None: array})
        else:
            methods = {"__dlpack__": lambda self, **kw: array.__dlpack__(**kw), "__dlpack_device__": lambda self: array.__dlpack_device__()}
            self.__class__ = type("Lent", (), methods)


@pytest.mark.parametrize("protocol", ["array", "dlpack"])
def test_anything_that_lends_its_memory_can_be_exported(protocol: str, tmp_path: Path) -> None:
    config = json.loads((LLAMA / "config.json").read_text())
    state = {name: array.astype(np.float16) for name, array in stored(LLAMA).items()}
    qr.export_gguf(state, config, LLAMA, tmp_path / "a.gguf", scheme="F16", pre="llama-bpe")
    lent = {name: Lent(array, protocol) for name, array in state.items()}
    qr.export_gguf(lent, config, LLAMA, tmp_path / "b.gguf", scheme="F16", pre="llama-bpe")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def broken_states() -> Iterator[tuple[Callable[[dict[str, object]], object], str]]:
    name = "model.layers.0.mlp.gate_proj.weight"
    yield lambda state: state | {name: "text"}, f"{name}: found str"
    yield lambda state: state | {name: np.zeros((256, 128), complex)}, f"{name}: found an array of complex128"
    yield lambda state: state | {name: np.full((256, 128), np.nan, np.float32)}, "ffn_gate.weight: row 0, column 0"
    yield lambda state: state | {name: np.zeros((3, 5), np.float32)}, "gate_proj.*expected"
    yield lambda state: {key: value for key, value in state.items() if key != name}, "no tensor .*gate_proj"
    yield lambda state: {}, "found no weights"
    yield lambda state: {1: 2}, "found the name 1"


@pytest.mark.parametrize(("change", "words"), list(broken_states()))
def test_weights_that_make_no_model_are_refused(
    change: Callable[[dict[str, object]], dict[str, object]], words: str, tmp_path: Path
) -> None:
    config = json.loads((LLAMA / "config.json").read_text())
    with pytest.raises((InputError, qr.FormatError), match=words):
        qr.export_gguf(change(dict(state_of(LLAMA))), config, LLAMA, tmp_path / "m.gguf", scheme="Q8_0", pre="llama-bpe")
    assert list(tmp_path.iterdir()) == []


def adapter(folder: Path) -> tuple[Path, np.ndarray]:
    """An adapter of one weight, and what it adds."""
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((4, 128), np.float32), rng.standard_normal((256, 4), np.float32)
    prefix = "base_model.model.model.layers.0.mlp.up_proj.lora_"
    folder.mkdir()
    write_safetensors(folder / "adapter_model.safetensors", {f"{prefix}A.weight": a, f"{prefix}B.weight": b})
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}))
    return folder, 2 * (b.astype(np.float64) @ a)


def test_an_adapter_is_added_on_the_way(tmp_path: Path) -> None:
    path, added = adapter(tmp_path / "adapter")
    assert quantrs("convert", LLAMA, tmp_path / "m.gguf", "--lora", f"{path}:0.5", "--to", "BF16", *PRE).code == 0
    base = stored(LLAMA)["model.layers.0.mlp.up_proj.weight"]
    want = base + 0.5 * added
    got = tensors(tmp_path / "m.gguf")["blk.0.ffn_up.weight"]
    assert np.abs(got - want).max() <= np.abs(want).max() / 256
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "m.gguf"]


def test_an_adapter_becomes_a_file_of_its_own(tmp_path: Path) -> None:
    path, added = adapter(tmp_path / "adapter")
    assert "name the folder of its base model" in quantrs("convert", path, tmp_path / "m.gguf").err
    assert quantrs("convert", path, tmp_path / "m.gguf", "--base", LLAMA).code == 0
    found = tensors(tmp_path / "m.gguf")
    a, b = found["blk.0.ffn_up.weight.lora_a"], found["blk.0.ffn_up.weight.lora_b"]
    with qr.open(tmp_path / "m.gguf") as file:
        alpha = file.metadata["adapter.lora.alpha"]
    assert isinstance(alpha, float)
    assert np.allclose(alpha / 4 * (b.astype(np.float64) @ a), added, rtol=1e-5, atol=1e-5)
    with pytest.raises(UsageError, match=r"ends in \.gguf"):
        qr.convert(path, tmp_path / "folder", base=LLAMA)


def test_any_state_dictionary_is_quantized_by_its_shapes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "m"
    folder.mkdir()
    arrays = {
        "enc.conv.weight": rng.standard_normal((8, 4, 3, 3), np.float32),
        "enc.lin.weight": rng.standard_normal((16, 512), np.float32),
    }
    write_safetensors(folder / "model.safetensors", arrays)
    assert "--arch generic" in quantrs("quantize", folder, tmp_path / "m.gguf", "--to", "Q4_K_M").err
    assert quantrs("quantize", folder, tmp_path / "m.gguf", "--to", "Q4_K_M", "--arch", "generic").code == 0
    with qr.open(tmp_path / "m.gguf") as model:
        assert {name: tensor.shape for name, tensor in model.tensors.items()} == {name: array.shape for name, array in arrays.items()}
        assert model.tensors["enc.lin.weight"].type == "q4_k"


def test_a_damaged_folder_is_refused_at_once(tmp_path: Path) -> None:
    folder = golden_folder("tiny-llama3-rope", tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    ran = quantrs("quantize", folder, tmp_path / "m.gguf", "--to", "Q8_0", *PRE)
    assert ran.code == 1
    assert "model.safetensors" in ran.err
    assert not (tmp_path / "m.gguf").exists()
    shutil.rmtree(folder)
