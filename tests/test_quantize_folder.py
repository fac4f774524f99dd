"""Checkpoint folders of quantized weights: what is written, that it is right, and that nothing is lost on the way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import quantrs as qr
from conftest import GOLDEN, Ran, run_python
from family_models import MODELS, N_VOCAB, TOKENS
from huggingface_folders import HF
from quantrs import _native
from quantrs.calibration.options import CalibrationOptions
from quantrs.errors import Cancelled, InputError, QuantrsError, UsageError
from quantrs.families import graph_of
from quantrs.huggingface import Folder, assemble
from quantrs.journal import Journal, Record
from quantrs.progress import Watcher
from quantrs.quantizing.read_values import read_float32
from quantrs.quantizing.schemes import folder_scheme

LLAMA = HF / "tiny-llama3-rope"
WEIGHTS = "model.safetensors"
TEXT = "The quick brown fox jumps over the lazy dog. " * 400
NOT_WRITTEN = {"gpt2", "llama_rope_factors"}
"""Matrices that lie as ``[in_features, out_features]``; frequencies that no configuration gives."""


def stored(folder: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Every tensor of a folder: type, shape, bytes; read without quantrs."""
    out = {}
    for path in sorted(folder.glob("*.safetensors")):
        raw = path.read_bytes()
        n = int.from_bytes(raw[:8], "little")
        for name, entry in json.loads(raw[8 : 8 + n]).items():
            if name != "__metadata__":
                a, b = entry["data_offsets"]
                out[name] = entry["dtype"], tuple(entry["shape"]), raw[8 + n + a : 8 + n + b]
    return out


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def logits(model: _native.Gguf) -> np.ndarray:
    graph, n_ctx = graph_of(model)
    engine = _native.Engine.load(model, graph.to_json(), n_ctx=n_ctx, activations="float", kv_type="f32")
    return engine.forward(TOKENS, "all")


def quantrs(*args: str | Path) -> Ran:
    return run_python("-m", "quantrs", *args)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "calibration.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def calibration(text: Path) -> CalibrationOptions:
    return CalibrationOptions(text=str(text), sequences=6, length=48)


def quantize(src: Path, dst: Path, scheme: str, calibration: CalibrationOptions | None = None, **options: object) -> qr.Report:
    return qr.quantize_checkpoint(src, dst, scheme=scheme, calibration=calibration, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("scheme", "golden"),
    [
        ("w4a16-g128", "tiny_llama_w4a16_g128_sym"),
        ("w4a16-g32-asym", "tiny_llama_w4a16_g32_asym"),
        ("w8a8", "tiny_llama_w8a8_int"),
        ("fp8", "tiny_llama_fp8_dynamic"),
    ],
)
def test_a_layer_rounded_to_nearest_is_the_one_that_llm_compressor_writes(scheme: str, golden: str, tmp_path: Path) -> None:
    """The golden folders keep one layer of each model; nothing but its name says that it is one."""
    (tmp_path / "src").mkdir()
    shutil.copy(HF / "tiny-llama" / "model.layer", tmp_path / "src" / WEIGHTS)
    quantize(tmp_path / "src", tmp_path / "out", scheme, method="rtn", arch="generic")
    ours, theirs = stored(tmp_path / "out"), stored(GOLDEN / "compressed_tensors" / golden)
    assert theirs.keys() <= ours.keys()
    assert [name for name in theirs if ours[name] != theirs[name]] == []
    configs = [json.loads((path / "config.json").read_text()) for path in (tmp_path / "out", GOLDEN / "compressed_tensors" / golden)]
    quantization = [{k: v for k, v in config["quantization_config"].items() if k not in ("version", "ignore")} for config in configs]
    assert quantization[0] == quantization[1]


@pytest.mark.parametrize(
    ("scheme", "golden"),
    [
        ("gptq-w4-g64", "gptq/tiny_llama_w4g64_sym"),
        ("gptq-w4-g32-asym-act", "gptq/tiny_llama_w4g32_asym_act"),
        ("awq-w4-g64", "awq/tiny_llama_w4g64"),
    ],
)
def test_tensors_have_the_names_types_and_shapes_of_the_reference(
    scheme: str, golden: str, tmp_path: Path, calibration: CalibrationOptions
) -> None:
    quantize(LLAMA, tmp_path / "out", scheme, calibration)
    ours = {name: (kind, len(shape)) for name, (kind, shape, _) in stored(tmp_path / "out").items()}
    theirs = {name: (kind, len(shape)) for name, (kind, shape, _) in stored(GOLDEN / golden).items()}
    assert theirs
    assert {name: ours.get(name) for name in theirs} == theirs
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["torch_dtype"] == ("float16" if scheme.startswith("awq") else "bfloat16")
    assert config.keys() - json.loads((LLAMA / "config.json").read_text()).keys() == {"quantization_config"}


@pytest.mark.parametrize("name", [name for name in MODELS if name not in NOT_WRITTEN])
@pytest.mark.parametrize("method", ["gptq", "awq", "smoothquant"])
def test_eight_bits_hardly_change_any_family(name: str, method: str, tmp_path: Path) -> None:
    """Wrong rows, a scale folded into one side only or a lost expert would change everything.

    That is by the size of the logits themselves. The middle token counts: rounding may send a single one to another expert.
    """
    (tmp_path / "m.gguf").write_bytes(MODELS[name].to_bytes())
    np.save(tmp_path / "ids.npy", np.random.default_rng(0).integers(0, N_VOCAB, (8, 48)))
    calibration = CalibrationOptions(text=str(tmp_path / "ids.npy"), length=48)
    quantize(tmp_path / "m.gguf", tmp_path / "out", "w8a16-g16", calibration, method=method)
    qr.convert(tmp_path / "m.gguf", tmp_path / "same", to="F32")
    before, after = (logits(assemble(Folder.open(tmp_path / name), with_tokenizer=False)) for name in ("same", "out"))
    assert np.median(np.abs(after - before).max(axis=1)) < 0.1 * np.abs(before).max()


@pytest.mark.parametrize("scheme", ["gptq-w4-g64", "gptq-w3-g32-asym", "awq-w4-g32", "w4a16-g64"])
def test_a_gguf_file_becomes_the_same_folder_as_the_folder_that_it_was_made_from(
    scheme: str, tmp_path: Path, calibration: CalibrationOptions
) -> None:
    qr.convert(LLAMA, tmp_path / "m.gguf", to="BF16", pre="llama-bpe")
    for name, src in {"a": LLAMA, "b": tmp_path / "m.gguf"}.items():
        quantize(src, tmp_path / name, scheme, calibration)
    ours, again = stored(tmp_path / "a"), stored(tmp_path / "b")
    assert ours.keys() == again.keys()
    linears = [name for name in ours if ".layers." in name and "norm" not in name]
    assert [name for name in linears if ours[name] != again[name]] == []


@pytest.mark.parametrize("scheme", ["gptq-w4-g64-act", "awq-w4-g64", "w8a8"])
def test_bytes_do_not_depend_on_threads(scheme: str, tmp_path: Path, calibration: CalibrationOptions) -> None:
    method = {"w8a8": "smoothquant"}.get(scheme)
    for n in (1, 3):
        quantize(LLAMA, tmp_path / str(n), scheme, calibration, method=method, threads=n)
    assert files(tmp_path / "1") == files(tmp_path / "3")


@contextmanager
def broken_off(monkeypatch: pytest.MonkeyPatch, n_records: int) -> Iterator[None]:
    """Work that ends like one that is stopped, when so many tensors are in the journal."""
    add = Journal.add

    def counted(journal: Journal, record: Record) -> None:
        if len(journal.records) == n_records:
            raise Cancelled("broken off")
        add(journal, record)

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "add", counted)
        with pytest.raises(Cancelled):
            yield


@pytest.mark.parametrize("scheme", ["gptq-w4-g64", "awq-w4-g64"])
@pytest.mark.parametrize("n_records", [2, 9, 34, 41])
def test_work_that_was_broken_off_goes_on_and_ends_with_the_same_bytes(
    scheme: str, n_records: int, tmp_path: Path, calibration: CalibrationOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first layer, within the first block, and within the second, whose inputs were saved."""
    whole, rest = tmp_path / "whole", tmp_path / "rest"
    quantize(LLAMA, whole, scheme, calibration)
    with broken_off(monkeypatch, n_records):
        quantize(LLAMA, rest, scheme, calibration)
    assert not (rest / "config.json").exists()
    assert not (rest / WEIGHTS).exists()
    with pytest.raises(InputError, match="unfinished work of another job"):
        quantize(LLAMA, rest, scheme, replace(calibration, sequences=5), resume=True)
    report = quantize(LLAMA, rest, scheme, calibration, resume=True)
    assert report.resumed_tensors == n_records
    assert files(rest) == files(whole)


def test_work_is_not_taken_up_under_a_recipe_that_was_changed(
    tmp_path: Path, calibration: CalibrationOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Symmetry and order do not show in names and sizes."""
    recipe, out = tmp_path / "r.toml", tmp_path / "out"
    recipe.write_text("[[rule]]\nmatch = 'down_proj'\ntype = 'w4-sym'\n")
    with broken_off(monkeypatch, 9):
        quantize(LLAMA, out, "gptq-w4-g64", calibration, recipe=recipe)
    recipe.write_text("[[rule]]\nmatch = 'down_proj'\ntype = 'w4-asym'\n")
    with pytest.raises(InputError, match=r"unfinished work of another job .*recipe"):
        quantize(LLAMA, out, "gptq-w4-g64", calibration, recipe=recipe, resume=True)


def test_rules_of_a_recipe_and_skipped_layers_stand_in_the_configuration(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text("[[rule]]\nmatch = 'down_proj'\ntype = 'w8-g32'\n[[rule]]\nmatch = 'layers.1.*o_proj'\nkeep = true\n")
    quantize(LLAMA, tmp_path / "out", "gptq-w4-g64", method="rtn", recipe=recipe, skip=["k_proj"])
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    tensors = stored(tmp_path / "out")
    assert tensors["model.layers.0.mlp.down_proj.qweight"][1] == (256 * 8 // 32, 128)
    assert tensors["model.layers.1.self_attn.o_proj.weight"] == stored(LLAMA)["model.layers.1.self_attn.o_proj.weight"]
    assert "model.layers.0.self_attn.k_proj.weight" in tensors
    assert config["dynamic"][r"+:^model\.layers\.0\.mlp\.down_proj$"] == {"bits": 8, "group_size": 32, "sym": True}
    assert config["dynamic"][r"-:^model\.layers\.1\.self_attn\.o_proj$"] == {}
    ids = [5, 6, 7, 8]
    logits = [qr.Session(path, activations="float").logits(ids) for path in (LLAMA, tmp_path / "out")]
    assert np.abs(logits[0] - logits[1]).max() < 0.4 * np.abs(logits[0]).max()


@pytest.mark.parametrize(("scheme", "method"), [("gptq-w3-g32", "gptq"), ("w3a16-g32", "rtn"), ("gptq-w3-g32-asym", "rtn")])
def test_searched_ranges_lower_the_error(scheme: str, method: str, tmp_path: Path, calibration: CalibrationOptions) -> None:
    given = None if method == "rtn" else calibration
    errors = []
    for mse in (None, 2.4):
        quantize(LLAMA, tmp_path / str(mse), scheme, given, method=method, mse=mse)
        folders = [assemble(Folder.open(path), with_tokenizer=False) for path in (LLAMA, tmp_path / str(mse))]
        names = [tensor.name for tensor in folders[0].tensors if "ffn" in tensor.name and len(tensor.dims) > 1]
        weights = [{t.name: read_float32(_native.Sources(folder), t) for t in folder.tensors if t.name in names} for folder in folders]
        errors.append(sum(float(np.square(weights[0][name] - weights[1][name]).sum()) for name in names))
    assert errors[1] < errors[0]


def test_a_folder_without_a_tokenizer_is_calibrated_on_token_ids(tmp_path: Path, calibration: CalibrationOptions) -> None:
    (tmp_path / "src").mkdir()
    for name in ("config.json", WEIGHTS):
        shutil.copy(LLAMA / name, tmp_path / "src" / name)
    np.save(tmp_path / "ids.npy", np.random.default_rng(0).integers(0, 512, (4, 48)))
    quantize(tmp_path / "src", tmp_path / "out", "gptq-w4-g64", CalibrationOptions(text=str(tmp_path / "ids.npy"), length=48))
    assert "model.layers.1.mlp.up_proj.qweight" in stored(tmp_path / "out")
    with pytest.raises(QuantrsError, match="tokenizer"):
        quantize(tmp_path / "src", tmp_path / "text", "gptq-w4-g64", calibration)


class _Counts(Watcher):
    def __init__(self) -> None:
        self.total, self.seen = 0, [0]

    def start(self, total_bytes: int) -> None:
        self.total = total_bytes

    def update(self, done_bytes: int) -> None:
        self.seen.append(done_bytes)


def test_progress_counts_what_is_made_and_not_what_is_copied(tmp_path: Path, text: Path) -> None:
    watcher = _Counts()
    calibration = CalibrationOptions(text=str(text), sequences=40, length=100)
    quantize(LLAMA, tmp_path / "out", "gptq-w4-g64", calibration, watcher=watcher)
    linears = sum(len(raw) for name, (_, _, raw) in stored(LLAMA).items() if "proj" in name)
    assert watcher.total == linears
    assert watcher.seen == sorted(watcher.seen)
    assert watcher.seen[-1] <= linears


def test_a_family_that_is_not_known_is_rounded_to_nearest(tmp_path: Path) -> None:
    shutil.copytree(LLAMA, tmp_path / "src")
    config = json.loads((LLAMA / "config.json").read_text()) | {"model_type": "novel", "architectures": ["NovelForCausalLM"]}
    (tmp_path / "src" / "config.json").write_text(json.dumps(config))
    quantize(LLAMA, tmp_path / "a", "w4a16-g64", method="rtn")
    quantize(tmp_path / "src", tmp_path / "b", "w4a16-g64", method="rtn")
    assert stored(tmp_path / "a") == stored(tmp_path / "b")
    with pytest.raises(InputError, match="has to run the model"):
        quantize(tmp_path / "src", tmp_path / "c", "gptq-w4-g64")


def test_large_models_are_cut_into_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quantize(LLAMA, tmp_path / "whole", "gptq-w4-g64", method="rtn")
    monkeypatch.setattr("quantrs.quantizing.folder.DEFAULT_SHARD_BYTES", 100_000)
    quantize(LLAMA, tmp_path / "cut", "gptq-w4-g64", method="rtn")
    assert len(list((tmp_path / "cut").glob("*.safetensors"))) > 2
    assert stored(tmp_path / "cut") == stored(tmp_path / "whole")
    index = json.loads((tmp_path / "cut" / "model.safetensors.index.json").read_text())["weight_map"]
    assert index.keys() == stored(tmp_path / "cut").keys()


@pytest.mark.parametrize(
    ("scheme", "options", "words"),
    [
        ("gptq-w17-g128", {}, "17 bits"),
        ("gptq-w4-g100", {}, "groups of 100"),
        ("awq-w3-g128", {}, "3 bits"),
        ("awq-w4-g128", {"method": "hqq"}, "expected one of awq, gptq"),
        ("awq-w4-g128-act", {}, "no activation order"),
        ("gptq-w4-g64-act", {"method": "rtn"}, "only gptq has an activation order"),
        ("gptq-four", {}, "bits, group size and flags"),
        ("w4a4-g128", {}, "expected a name such as"),
        ("gptq-w4-g64", {"skip": ["("]}, "not a regular expression"),
        ("gptq-w4-g64", {"pure": True}, "--pure: is for GGUF files"),
        ("Q4_K_M", {"method": "rtn"}, "--method: is for checkpoint folders"),
    ],
)
def test_what_makes_no_sense_is_wrong_usage(scheme: str, options: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        quantize(LLAMA, tmp_path / "out", scheme, **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("scheme", "options", "words"),
    [
        ("gptq-w4-g512", {"method": "rtn"}, r"down_proj: in_features 256 is not a multiple of the group size 512"),
        ("gptq-w4-g64", {"skip": ["nothing"]}, "is found in no linear's name"),
        ("gptq-w4-g64", {"skip": ["proj"]}, "no linear is left"),
    ],
)
def test_what_the_model_cannot_have_is_refused_before_the_work(scheme: str, options: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        quantize(LLAMA, tmp_path / "out", scheme, **options)
    assert not (tmp_path / "out").exists()


def test_a_text_that_is_too_short_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("one two")
    with pytest.raises(InputError, match="give a longer text"):
        quantize(LLAMA, tmp_path / "out", "gptq-w4-g64", CalibrationOptions(text=str(tmp_path / "short.txt")))
    assert not (tmp_path / "out").exists()


def test_a_quantized_model_is_quantized_again_only_if_asked(tmp_path: Path) -> None:
    quantize(LLAMA, tmp_path / "once", "w8a16-g64", method="rtn")
    with pytest.raises(InputError, match="quantized already"):
        quantize(tmp_path / "once", tmp_path / "twice", "gptq-w4-g64", method="rtn")
    quantize(tmp_path / "once", tmp_path / "twice", "gptq-w4-g64", method="rtn", allow_requantize=True)
    assert "model.layers.0.mlp.up_proj.qweight" in stored(tmp_path / "twice")


def test_the_plan_tells_the_bytes_of_the_folder(tmp_path: Path) -> None:
    ran = quantrs("plan", LLAMA, "--to", "gptq-w4-g64", "--json")
    assert ran.code == 0
    planned = json.loads(ran.out)
    report = quantize(LLAMA, tmp_path / "out", "gptq-w4-g64", method="rtn")
    assert planned["file_bytes"] == report.file_bytes == (tmp_path / "out" / WEIGHTS).stat().st_size
    assert {row["name"] for row in planned["tensors"]} == stored(tmp_path / "out").keys()


def test_the_command_says_what_it_wrote(tmp_path: Path, text: Path) -> None:
    ran = quantrs(
        "quantize", LLAMA, tmp_path / "out", "--to", "gptq-w4-g64", "--calib", text, "--calib-sequences", "4", "--calib-length", "32"
    )
    assert ran.code == 0, ran.err
    assert "gptq-w4-g64" in ran.out
    alone = quantrs("quantize", LLAMA, tmp_path / "alone", "--to", "gptq-w4-g64", "--calib-length", "32", "--no-sequential")
    assert alone.code == 2
    assert "--calib-length, --no-sequential: say how to calibrate; add --calib FILE, or --calib default" in alone.err
    again = quantrs("quantize", LLAMA, tmp_path / "out", "--to", "gptq-w4-g64", "--method", "rtn")
    assert again.code == 1
    assert "exists already" in again.err


def test_that_the_text_of_the_package_was_used_is_said(tmp_path: Path, calibration: CalibrationOptions) -> None:
    ours = quantize(LLAMA, tmp_path / "ours", "gptq-w4-g64", CalibrationOptions(sequences=2, length=32))
    given = quantize(LLAMA, tmp_path / "given", "gptq-w4-g64", calibration)
    assert any("2 sequences of 32 tokens of the text that comes with quantrs" in text for text in ours.notices)
    assert not any("comes with quantrs" in text for text in given.notices)


def test_names_of_schemes_are_read_in_any_case() -> None:
    found = folder_scheme("W8A16-G64-ASYM")
    assert found is not None
    assert (found.format, found.layer.bits, found.layer.group_size, found.layer.symmetric) == ("compressed-tensors", 8, 64, False)
    assert folder_scheme("IQ4_XS") is None
