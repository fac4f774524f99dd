"""Importance matrices: computed, merged, written in both forms, and used on the way to a quantized file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import quantrs as qr
from conftest import Ran
from family_models import MODELS, N_VOCAB
from gguf_bytes import gguf
from quantrs import _native
from quantrs.calibration.coverage import Coverage
from quantrs.calibration.imatrix import ImatrixReport, make_imatrix
from quantrs.calibration.options import CalibrationOptions
from quantrs.errors import FormatError, InputError, UsageError
from quantrs.pipeline import quantize_checkpoint

CTX, N_CHUNKS = 16, 3
Command = Callable[..., Ran]


def write_model(folder: Path, name: str, **fixed: np.ndarray) -> Path:
    path = folder / f"{name}.gguf"
    model = MODELS[name]
    path.write_bytes(type(model)(model.architecture, model.metadata, model.shapes, model.fixed | fixed, model.other_metadata).to_bytes())
    return path


def write_ids(folder: Path, n_chunks: int = N_CHUNKS) -> Path:
    np.save(folder / "ids.npy", np.arange(n_chunks * CTX, dtype=np.int64) * 7 % N_VOCAB)
    return folder / "ids.npy"


def made(folder: Path, name: str = "llama", out: str = "out.gguf", **options: object) -> tuple[Path, ImatrixReport]:
    path, ids = write_model(folder, name), write_ids(folder)
    report = make_imatrix(path, folder / out, text=str(ids), ctx=CTX, force=True, **options)  # type: ignore[arg-type]
    return folder / out, report


@pytest.mark.parametrize("name", ["llama", "phi3", "mixtral", "qwen2moe", "gemma2"])
def test_entries_are_mean_squares_of_the_inputs(name: str, tmp_path: Path) -> None:
    path, report = made(tmp_path, name)
    session, ids = qr.Session(tmp_path / f"{name}.gguf", n_ctx=CTX), np.load(tmp_path / "ids.npy")
    found = _native.Imatrix.open(path)
    assert (found.datasets, found.chunk_count, report.chunks) == ([str(tmp_path / "ids.npy")], N_CHUNKS, N_CHUNKS)
    traced = [session.trace(chunk, found.names) for chunk in ids.reshape(N_CHUNKS, CTX)]
    for entry in found.names:
        experts = range(MODELS[name].shapes[entry][0]) if "_exps" in entry else [None]
        want = []
        for expert in experts:
            key = entry if expert is None else f"{entry}[{expert}]"
            x = np.concatenate([t[key] for t in traced if key in t] or [np.ones((1, MODELS[name].shapes[entry][-1]))])
            want.append(np.square(x.astype(np.float64)).mean(0))
        got = np.array(found.values(entry), np.float64)
        assert np.allclose(got, np.concatenate(want), rtol=2e-6), entry


def test_every_matrix_of_the_blocks_has_an_entry_and_the_output_on_demand(tmp_path: Path) -> None:
    path, _ = made(tmp_path)
    matrices = {name for name, shape in MODELS["llama"].shapes.items() if len(shape) == 2 and name.startswith("blk.")}
    assert set(_native.Imatrix.open(path).names) == matrices
    path, _ = made(tmp_path, process_output=True)
    assert set(_native.Imatrix.open(path).names) == matrices | {"output.weight"}


def test_the_file_is_laid_out_as_llama_imatrix_writes_it(tmp_path: Path) -> None:
    path, _ = made(tmp_path, "mixtral")
    file = _native.Gguf.open(path)
    assert file.keys() == ["general.type", "imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"]
    assert file.get("general.type") == "imatrix"
    names = [tensor.name for tensor in file.tensors]
    assert names[::2] == [f"{name.removesuffix('.counts')}.in_sum2" for name in names[1::2]]
    assert names[::2] == sorted(names[::2])
    dims = {tensor.name: tensor.dims for tensor in file.tensors}
    assert dims["blk.0.ffn_down_exps.weight.in_sum2"] == (96, 4)
    assert dims["blk.0.ffn_down_exps.weight.counts"] == (1, 4)
    assert dims["blk.0.attn_q.weight.counts"] == (1,)


def test_the_file_does_not_depend_on_threads(tmp_path: Path) -> None:
    one, _ = made(tmp_path, "mixtral", "one.gguf", threads=1)
    three, _ = made(tmp_path, "mixtral", "three.gguf", threads=3)
    assert one.read_bytes() == three.read_bytes()


def test_the_legacy_form_holds_the_same(tmp_path: Path) -> None:
    new, _ = made(tmp_path, "mixtral")
    old, _ = made(tmp_path, "mixtral", "out.dat")
    assert not old.read_bytes().startswith(b"GGUF")
    a, b = _native.Imatrix.open(new), _native.Imatrix.open(old)
    assert (a.names, a.datasets, a.chunk_count) == (b.names, b.datasets, b.chunk_count)
    assert all(np.allclose(a.values(name) or 0, b.values(name) or 1, rtol=1e-6) for name in a.names)


@pytest.mark.parametrize("form", ["gguf", "dat"])
def test_merging_the_halves_gives_the_whole(form: str, tmp_path: Path) -> None:
    path, ids = write_model(tmp_path, "llama"), np.load(write_ids(tmp_path, 4))
    for i, part in enumerate((ids[: 2 * CTX], ids[2 * CTX :], ids)):
        np.save(tmp_path / f"{i}.npy", part)
        make_imatrix(path, tmp_path / f"{i}.{form}", text=str(tmp_path / f"{i}.npy"), ctx=CTX)
    report = make_imatrix(None, tmp_path / "merged.gguf", ctx=CTX, merge=[tmp_path / f"0.{form}", tmp_path / f"1.{form}"])
    assert (report.chunks, len(report.datasets)) == (4, 2)
    merged, whole = _native.Imatrix.open(tmp_path / "merged.gguf"), _native.Imatrix.open(tmp_path / f"2.{form}")
    assert all(np.allclose(merged.values(name) or 0, whole.values(name) or 1, rtol=1e-6) for name in whole.names)


def test_files_of_another_model_are_not_merged(tmp_path: Path) -> None:
    other, _ = made(tmp_path, "qwen3moe", "other.gguf")
    with pytest.raises(InputError, match=r"matrices of one model alone can be merged"):
        made(tmp_path, "mixtral", merge=[other])


def test_experts_that_saw_little_are_told_or_refused(tmp_path: Path) -> None:
    _, report = made(tmp_path, "mixtral")
    assert report.coverage.n_experts == 2 * 3 * 4
    assert report.coverage.part < 1
    assert "saw fewer than 64 tokens" in report.coverage.notices()[0]
    with pytest.raises(InputError, match=r"--min-coverage: .* of the experts saw 64 tokens or more, expected 100.0%"):
        made(tmp_path, "mixtral", min_coverage=1.0)


def test_a_dense_model_is_covered() -> None:
    assert Coverage.of({"a": [0]}).part == 1


def test_values_that_are_not_finite_name_chunk_and_tensor(tmp_path: Path) -> None:
    huge = {"blk.1.ffn_norm.weight": np.full(64, 1e25, np.float32)}
    path, ids = write_model(tmp_path, "llama", **huge), write_ids(tmp_path)
    with pytest.raises(FormatError, match=r"chunk 0: input of blk\.1\.ffn_gate\.weight: the result is not finite"):
        make_imatrix(path, tmp_path / "out.gguf", text=str(ids), ctx=CTX)
    assert not (tmp_path / "out.gguf").exists()


def test_an_output_is_not_overwritten_and_something_has_to_be_done(tmp_path: Path) -> None:
    path, _ = made(tmp_path)
    with pytest.raises(InputError, match="exists already"):
        make_imatrix(tmp_path / "llama.gguf", path, text=str(tmp_path / "ids.npy"), ctx=CTX)
    with pytest.raises(UsageError, match="neither a MODEL nor --merge"):
        make_imatrix(None, tmp_path / "new.gguf")


def test_the_command_says_what_it_wrote(command: Command, tmp_path: Path) -> None:
    model, ids = write_model(tmp_path, "mixtral"), write_ids(tmp_path)
    done = command("imatrix", model, "--text", ids, "-o", tmp_path / "out.gguf", "--ctx", CTX, "--chunks", 2, "--json")
    assert done.code == 0, done.err
    value = json.loads(done.out)
    assert (value["chunks"], value["ctx"]) == (2, CTX)
    assert "saw fewer than 64 tokens" in done.err
    done = command("imatrix", "--merge", tmp_path / "out.gguf", "-o", tmp_path / "again.gguf", "--ctx", CTX)
    assert (done.code, (tmp_path / "again.gguf").read_bytes()) == (0, (tmp_path / "out.gguf").read_bytes()), done.err


def wide_model(folder: Path) -> Path:
    """Rows of 256, so that every type suits."""
    path = folder / "wide.gguf"
    rng = np.random.default_rng(0)
    n_embd, n_ff, n_vocab = 256, 512, 96
    block = {"attn_q": (n_embd, n_embd), "attn_k": (128, n_embd), "attn_v": (128, n_embd), "attn_output": (n_embd, n_embd)}
    block |= {"ffn_gate": (n_ff, n_embd), "ffn_up": (n_ff, n_embd), "ffn_down": (n_embd, n_ff)}
    tensors = {"token_embd.weight": (n_vocab, n_embd), "output.weight": (n_vocab, n_embd)}
    tensors |= {f"blk.0.{name}.weight": shape for name, shape in block.items()}
    arrays = {name: rng.standard_normal(shape).astype(np.float32) / 16 for name, shape in tensors.items()}
    norms = ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm")
    arrays |= {f"{name}.weight": rng.uniform(0.1, 4, n_embd).astype(np.float32) for name in norms}
    facts: dict[str, object] = {
        "general.architecture": "llama",
        "llama.block_count": 1,
        "llama.context_length": 64,
        "llama.embedding_length": n_embd,
        "llama.feed_forward_length": n_ff,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "none",
    }
    path.write_bytes(gguf(arrays, facts))
    return path


def calibration(ids: Path, **options: float) -> CalibrationOptions:
    return CalibrationOptions(text=str(ids), length=CTX, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("scheme", ["Q2_K", "IQ4_XS"])
def test_calibrating_is_quantizing_with_the_matrix_of_the_text(scheme: str, tmp_path: Path) -> None:
    model, ids = wide_model(tmp_path), write_ids(tmp_path)
    make_imatrix(model, tmp_path / "m.gguf", text=str(ids), ctx=CTX)
    quantize_checkpoint(model, tmp_path / "a.gguf", scheme=scheme, imatrix=tmp_path / "m.gguf")
    quantize_checkpoint(model, tmp_path / "b.gguf", scheme=scheme, calibration=calibration(ids))
    a, b = (_native.Gguf.open(tmp_path / name) for name in ("a.gguf", "b.gguf"))
    sources = _native.Sources(a), _native.Sources(b)
    for one, other in zip(a.tensors, b.tensors, strict=True):
        assert sources[0].read(one) == sources[1].read(other), one.name
    assert b.get("quantize.imatrix.file") == b.get("quantize.imatrix.dataset") == str(ids)
    assert b.get("quantize.imatrix.chunks_count") == N_CHUNKS
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_run_that_was_broken_off_takes_up_its_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from quantrs.calibration import for_gguf

    model, ids = wide_model(tmp_path), write_ids(tmp_path)
    quantize_checkpoint(model, tmp_path / "a.gguf", scheme="Q2_K", calibration=calibration(ids))

    def broken_off(*args: object, **kw: object) -> None:
        raise KeyboardInterrupt

    dst = tmp_path / "b.gguf"
    with monkeypatch.context() as patch:
        patch.setattr("quantrs.writer.publish", broken_off)
        with pytest.raises(KeyboardInterrupt):
            quantize_checkpoint(model, dst, scheme="Q2_K", calibration=calibration(ids))
    assert [path for path in tmp_path.iterdir() if path.name.endswith(".quantrs-imatrix")]
    with monkeypatch.context() as patch:
        patch.setattr(for_gguf, "add_squares", lambda *args, **kw: pytest.fail("computed again"))
        quantize_checkpoint(model, dst, scheme="Q2_K", calibration=calibration(ids), resume=True)
        report = quantize_checkpoint(model, dst, scheme="Q2_K", calibration=calibration(ids), resume=True)
        assert report.already_complete
    assert dst.read_bytes() == (tmp_path / "a.gguf").read_bytes()
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_refusals_come_before_the_text_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from quantrs.calibration import for_gguf

    model, ids = wide_model(tmp_path), write_ids(tmp_path)
    monkeypatch.setattr(for_gguf, "add_squares", lambda *args, **kw: pytest.fail("was run"))
    (tmp_path / "there.gguf").touch()
    with pytest.raises(InputError, match="exists already"):
        quantize_checkpoint(model, tmp_path / "there.gguf", scheme="Q2_K", calibration=calibration(ids))
    with pytest.raises(InputError, match="no folder"):
        quantize_checkpoint(model, tmp_path / "absent" / "x.gguf", scheme="Q2_K", calibration=calibration(ids))
    with pytest.raises(UsageError):
        quantize_checkpoint(model, tmp_path / "x.gguf", scheme="Q17", calibration=calibration(ids))
    with pytest.raises(InputError, match="has 3 sequences of 16 tokens, expected 9"):
        quantize_checkpoint(model, tmp_path / "x.gguf", scheme="Q2_K", calibration=calibration(ids, sequences=9))
    with pytest.raises(UsageError, match="keep one of them"):
        quantize_checkpoint(model, tmp_path / "x.gguf", scheme="Q2_K", imatrix=ids, calibration=calibration(ids))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ids.npy", "there.gguf", "wide.gguf"]


def test_the_command_calibrates(command: Command, tmp_path: Path) -> None:
    model, ids = wide_model(tmp_path), write_ids(tmp_path)
    args = ("quantize", model, tmp_path / "out.gguf", "--to", "Q3_K_M", "--calib", ids, "--calib-length", CTX, "--calib-sequences", 2)
    done = command(*args)
    assert done.code == 0, done.err
    assert _native.Gguf.open(tmp_path / "out.gguf").get("quantize.imatrix.chunks_count") == 2
    done = command("quantize", model, tmp_path / "new.gguf", "--to", "Q3_K_M", "--calib-length", CTX)
    assert done.code == 2
    assert "add --calib FILE" in done.err


class Stopped(BaseException):
    pass


def test_a_command_that_was_stopped_goes_on_and_writes_the_same_file(tmp_path: Path) -> None:
    model, ids = write_model(tmp_path, "mixtral"), write_ids(tmp_path, 5)
    whole, other = tmp_path / "whole.gguf", tmp_path / "whole" / "out.gguf"
    other.parent.mkdir()
    make_imatrix(model, whole, text=str(ids), ctx=CTX)

    def stop(n_done: int, n_all: int) -> None:
        if n_done == 3:
            raise Stopped

    with pytest.raises(Stopped):
        make_imatrix(model, other, text=str(ids), ctx=CTX, watch=stop)
    assert [path.suffix for path in other.parent.iterdir()] == [".quantrs-sums"]
    steps: list[int] = []
    make_imatrix(model, other, text=str(ids), ctx=CTX, resume=True, watch=lambda n_done, _: steps.append(n_done))
    assert steps == [4, 5]
    assert other.read_bytes() == whole.read_bytes()
    assert list(other.parent.iterdir()) == [other]


def test_sums_that_were_damaged_are_computed_again(tmp_path: Path) -> None:
    from quantrs.calibration.partial_sums import PartialSums

    sums = _native.ImatrixSums(CTX)
    partial = PartialSums(tmp_path / "out", "key")
    partial.save(sums)
    assert partial.take_up(sums) == 0  # nothing is saved in the first seconds
    partial.save(sums, at_once=True)
    partial.path.write_bytes(partial.path.read_bytes()[:-1])
    assert partial.take_up(sums) == 0
    partial.remove()
    assert not list(tmp_path.iterdir())
