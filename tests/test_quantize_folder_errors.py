"""Checkpoint folders of quantized weights, when something is wrong with the model, the options or the place: nothing is left behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import quantrs as qr
from family_models import MODELS
from huggingface_folders import HF
from quantrs.calibration.hidden_states import HiddenStates, hidden_path
from quantrs.calibration.options import CalibrationOptions
from quantrs.errors import FileError, FormatError, InputError, QuantrsError, UsageError
from quantrs.progress import Watcher
from quantrs.quantizing.write import journal_place

LLAMA = HF / "tiny-llama3-rope"
TEXT = "The quick brown fox jumps over the lazy dog. " * 100
CALIBRATED = ["gptq", "awq", "smoothquant"]


@pytest.fixture
def calibration(tmp_path: Path) -> CalibrationOptions:
    (tmp_path / "calibration.txt").write_text(TEXT)
    return CalibrationOptions(text=str(tmp_path / "calibration.txt"), sequences=3, length=32)


def damaged(folder: Path, name: str, value: float, place: slice = slice(None)) -> Path:
    """A copy of the model with values of one tensor changed."""
    shutil.copytree(LLAMA, folder)
    path = folder / "model.safetensors"
    raw = bytearray(path.read_bytes())
    n = int.from_bytes(raw[:8], "little")
    entry = json.loads(raw[8 : 8 + n])[name]
    assert entry["dtype"] == "BF16"
    start, end = (8 + n + offset for offset in entry["data_offsets"])
    values = np.frombuffer(raw[start:end], np.uint16).copy()
    values[place] = np.float32(value).view(np.uint32) >> 16
    raw[start:end] = values.tobytes()
    path.chmod(0o644)
    path.write_bytes(raw)
    return folder


class Notices(Watcher):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def notice(self, text: str) -> None:
        self.texts.append(text)


@pytest.mark.parametrize("method", [*CALIBRATED, "rtn"])
def test_a_weight_that_is_no_number_is_named(method: str, tmp_path: Path, calibration: CalibrationOptions) -> None:
    src = damaged(tmp_path / "src", "model.layers.1.self_attn.k_proj.weight", np.nan, slice(5, 6))
    words = r"layers\.1\.self_attn\.k_proj: .*NaN in row 0, column 5" if method == "rtn" else r"calibration sequence 0: .*blk\.1\."
    with pytest.raises((InputError, FormatError), match=words):
        qr.quantize_checkpoint(
            src, tmp_path / "out", scheme="w4a16-g64", method=method, calibration=None if method == "rtn" else calibration
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("memory_budget", [1 << 30, 1000])
def test_activations_that_are_no_numbers_are_named_by_their_sequence(
    memory_budget: int, tmp_path: Path, calibration: CalibrationOptions
) -> None:
    ids = np.random.default_rng(0).integers(0, 90, (3, 32))
    ids[2, 7] = 99
    np.save(tmp_path / "ids.npy", ids)
    src = damaged(tmp_path / "src", "model.embed_tokens.weight", np.nan, slice(99 * 128, 100 * 128))
    calibration = CalibrationOptions(text=str(tmp_path / "ids.npy"), length=32, memory_budget=memory_budget)
    with pytest.raises(FormatError, match=r"calibration sequence 2: token_embd\.weight"):
        qr.quantize_checkpoint(src, tmp_path / "out", scheme="gptq-w4-g64", calibration=calibration)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_sums_that_overflow_name_their_linear(method: str, tmp_path: Path, calibration: CalibrationOptions) -> None:
    src = damaged(tmp_path / "src", "model.layers.0.mlp.up_proj.weight", 1e30)
    with pytest.raises(InputError, match=r"(layers\.0\.mlp\.down_proj|blk\.0\.ffn_down\.weight): hessian: found inf"):
        qr.quantize_checkpoint(src, tmp_path / "out", scheme="w4a16-g64", method=method, calibration=calibration)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", CALIBRATED)
def test_a_linear_without_inputs_is_rounded_to_nearest(method: str, tmp_path: Path, calibration: CalibrationOptions) -> None:
    src, watcher = damaged(tmp_path / "src", "model.layers.0.mlp.gate_proj.weight", 0), Notices()
    report = qr.quantize_checkpoint(src, tmp_path / "out", scheme="w4a16-g64", method=method, calibration=calibration, watcher=watcher)
    assert report.notices == tuple(watcher.texts)
    assert "model.layers.0.mlp.down_proj: inputs were 0 in all of the calibration; rounded to nearest" in watcher.texts
    assert np.isfinite(qr.Session(tmp_path / "out").logits([1, 2, 3])).all()


def test_an_empty_folder_of_the_user_stays(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    src = damaged(tmp_path / "src", "model.layers.1.self_attn.k_proj.weight", np.nan)
    with pytest.raises(InputError):
        qr.quantize_checkpoint(src, tmp_path / "out", scheme="w4a16-g64", method="rtn")
    assert list((tmp_path / "out").iterdir()) == []


def test_hidden_states_of_a_run_that_was_killed_at_its_end_go_with_the_next(tmp_path: Path, calibration: CalibrationOptions) -> None:
    out = tmp_path / "out"
    qr.quantize_checkpoint(LLAMA, out, scheme="gptq-w4-g64", calibration=calibration)
    states = HiddenStates(journal_place(out), "job", (1, 2, 3), 0)
    states[0] = np.zeros((2, 3), np.float32)
    states.checkpoint(1)
    states.close()
    assert hidden_path(journal_place(out)).exists()
    report = qr.quantize_checkpoint(LLAMA, out, scheme="gptq-w4-g64", calibration=calibration, resume=True)
    assert report.already_complete
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("place", "error"),
    [
        (lambda path: "", UsageError),
        (lambda path: path / ("n" * 300), FileError),
        (lambda path: path / "absent" / "out", InputError),
        (lambda path: path / "file", InputError),
        (lambda path: path / "link", QuantrsError),
    ],
)
def test_places_that_no_folder_can_have(place: Callable[[Path], Path | str], error: type[QuantrsError], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(error):
        qr.quantize_checkpoint(LLAMA, place(tmp_path), scheme="gptq-w4-g64", method="rtn")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_floats_are_not_found_by_methods_for_integers(method: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="finds integers"):
        qr.quantize_checkpoint(LLAMA, tmp_path / "out", scheme="fp8", method=method)


def test_an_activation_order_of_some_layers_stands_in_the_configuration(tmp_path: Path, calibration: CalibrationOptions) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text("[[rule]]\nmatch = 'down_proj'\ntype = 'w4-act'\n")
    qr.quantize_checkpoint(LLAMA, tmp_path / "out", scheme="gptq-w4-g64", recipe=recipe, calibration=calibration)
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert config["desc_act"] is False
    assert config["dynamic"][r"+:^model\.layers\.0\.mlp\.down_proj$"]["desc_act"] is True
    with pytest.raises(UsageError, match="only gptq has an activation order"):
        qr.quantize_checkpoint(LLAMA, tmp_path / "other", scheme="gptq-w4-g64", recipe=recipe, method="rtn")


@pytest.mark.parametrize("method", CALIBRATED)
def test_an_expert_that_few_tokens_reach_is_as_without_calibration(method: str, tmp_path: Path) -> None:
    """Scales and errors would be fitted to those few tokens."""
    (tmp_path / "m.gguf").write_bytes(MODELS["mixtral"].to_bytes())
    np.save(tmp_path / "ids.npy", np.full((1, 8), 3))
    calibration = CalibrationOptions(text=str(tmp_path / "ids.npy"), length=8, sequential=False)
    for name, how in (("few", method), ("none", "rtn")):
        qr.quantize_checkpoint(
            tmp_path / "m.gguf", tmp_path / name, scheme="w4a16-g32", method=how, calibration=calibration if name == "few" else None
        )
    few, none = (load_file(tmp_path / name / "model.safetensors") for name in ("few", "none"))
    downs = [name for name in few if ".experts." in name and ".w2." in name]
    assert downs
    assert [name for name in downs if not np.array_equal(few[name], none[name])] == []
