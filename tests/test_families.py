"""Every family against llama.cpp's logits, and files that contradict themselves."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import quantrs as qr
from conftest import GOLDEN, run_python
from family_models import MODELS, N_EMBD, N_VOCAB, TOKENS, Model
from quantrs.families import FAMILIES

# llama.cpp looks GELU up in a table of half precision.
LOOSE = ("gemma", "gpt2")


@cache
def golden_logits() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "family_logits" / "logits.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def write(folder: Path, model: Model) -> Path:
    path = folder / "model.gguf"
    path.write_bytes(model.to_bytes())
    return path


def changed(name: str, **metadata: object) -> Model:
    model = copy.deepcopy(MODELS[name])
    model.metadata |= {key.replace("__", "."): value for key, value in metadata.items()}
    return model


def relative_error(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.abs(got - want).max() / np.abs(want).max())


def test_logits_equal_those_of_llama_cpp(name: str, tmp_path: Path) -> None:
    got = qr.Session(write(tmp_path, MODELS[name])).logits(TOKENS)
    error = relative_error(got, golden_logits()[name])
    assert error < (1e-3 if name.startswith(LOOSE) else 1e-5), f"{error:.1e}"


def test_every_row_of_the_table_has_a_model_with_golden_logits() -> None:
    assert {model.architecture for model in MODELS.values()} == set(FAMILIES)
    assert golden_logits().keys() == MODELS.keys()


def test_tokens_may_come_one_by_one_and_on_any_number_of_threads(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, MODELS[name])
    all_at_once = qr.Session(path, threads=1).logits(TOKENS)
    assert np.array_equal(qr.Session(path, threads=3).logits(TOKENS), all_at_once)
    session = qr.Session(path, threads=2)
    one_by_one = np.concatenate([session.engine.forward([i]) for i in TOKENS])
    assert relative_error(one_by_one, all_at_once) < 1e-5
    assert session.engine.n_past == len(TOKENS)


def test_levels_agree(level: str, tmp_path: Path) -> None:
    path = write(tmp_path, MODELS["gemma3"])
    code = f"import numpy as np, quantrs as qr; np.save({str(tmp_path / 'out.npy')!r}, qr.Session({str(path)!r}).logits({TOKENS}))"
    done = run_python("-c", code, env={"QUANTRS_LEVEL": level})
    assert done.code == 0, done.err
    assert relative_error(np.load(tmp_path / "out.npy"), golden_logits()["gemma3"]) < 1e-3


@pytest.mark.parametrize(("kv_type", "allowed"), [("f32", 1e-5), ("f16", 2e-3)])
def test_a_smaller_cache_costs_little(kv_type: str, allowed: float, tmp_path: Path) -> None:
    got = qr.Session(write(tmp_path, MODELS["llama"]), kv_type=kv_type).logits(TOKENS)  # type: ignore[arg-type]
    assert relative_error(got, golden_logits()["llama"]) < allowed


def test_a_cache_in_blocks_of_32_refuses_heads_of_16_values(tmp_path: Path) -> None:
    with pytest.raises(qr.InputError, match=r"kv_type Q8_0.*16 values"):
        qr.Session(write(tmp_path, MODELS["llama"]), kv_type="q8_0")


def test_a_trace_holds_the_inputs_of_linears_and_the_hidden_states(tmp_path: Path) -> None:
    session = qr.Session(write(tmp_path, MODELS["mixtral"]))
    names = ["blk.0.attn_q.weight", "blk.1.ffn_down_exps.weight", "output.weight"]
    traced = session.trace(TOKENS, names, hidden=True)
    assert traced["blk.0.attn_q.weight"].shape == (len(TOKENS), N_EMBD)
    routed = [key for key in traced if key.startswith("blk.1.ffn_down_exps.weight[")]
    assert sum(len(traced[key]) for key in routed) == 2 * len(TOKENS)
    assert np.allclose(session.block_forward(1, traced["blk.1"]), traced["blk.2"], atol=1e-6)
    assert traced["output.weight"].shape == (1, N_EMBD)


def test_hidden_states_times_the_output_matrix_are_the_logits(tmp_path: Path) -> None:
    path = write(tmp_path, MODELS["llama"])
    session = qr.Session(path)
    with qr.open(path) as model:
        output = model.tensors["output.weight"].dequantize()
    assert np.allclose(session.hidden(TOKENS) @ output.T, session.logits(TOKENS), atol=1e-4)


def test_a_context_is_continued_cut_and_never_overrun(tmp_path: Path) -> None:
    session = qr.Session(write(tmp_path, MODELS["llama"]), n_ctx=len(TOKENS))
    want = session.logits(TOKENS)
    with pytest.raises(qr.InputError, match="20 tokens are in the context and 1 more"):
        session.engine.forward([1])
    session.engine.truncate(7)
    assert np.allclose(session.engine.forward(TOKENS[7:], "all"), want[7:], atol=1e-5)


@pytest.mark.parametrize(("ids", "message"), [([], "tokens"), ([-1], "-1"), ([N_VOCAB], f"below {N_VOCAB}"), ([2**40], "vocabulary")])
def test_ids_outside_the_vocabulary_are_refused(ids: list[int], message: str, tmp_path: Path) -> None:
    with pytest.raises(qr.InputError, match=message):
        qr.Session(write(tmp_path, MODELS["llama"])).logits(ids)


@pytest.mark.parametrize("ids", [[1.5], ["a"], "text", None, [[1, 2]], np.zeros((2, 2), np.int64)])
def test_ids_are_whole_numbers(ids: object, tmp_path: Path) -> None:
    session = qr.Session(write(tmp_path, MODELS["llama"]))
    with pytest.raises(qr.InputError, match=r"tokens: found .* expected a sequence of whole numbers"):
        session.logits(ids)  # type: ignore[arg-type]


def damaged() -> Iterator[tuple[str, Model, type[Exception], str]]:
    """What is wrong, the model, the error and words of its message."""
    llama = MODELS["llama"]
    yield (
        "no tensor",
        dataclasses.replace(llama, shapes={k: v for k, v in llama.shapes.items() if "attn_k" not in k}),
        qr.FormatError,
        "attn_k",
    )
    yield "shape", dataclasses.replace(llama, shapes={**llama.shapes, "blk.1.ffn_up.weight": (96, 32)}), qr.FormatError, r"ffn_up.*32, 96"
    yield "extra", dataclasses.replace(llama, shapes={**llama.shapes, "blk.1.attn_x.weight": (4, 4)}), qr.FormatError, "attn_x"
    yield "heads", changed("llama", attention__head_count=0), qr.FormatError, "head_count' is 0"
    yield "kv heads", changed("llama", attention__head_count_kv=3), qr.InputError, r"\(4, 3\)"
    yield "blocks", changed("llama", block_count=2**31), qr.FormatError, "block_count"
    yield "fewer blocks", changed("llama", block_count=1), qr.FormatError, "block_count' is 1, expected 2"
    yield "text", changed("llama", embedding_length="64"), qr.FormatError, "embedding_length"
    yield "rope", changed("llama", rope__scaling__type="odd"), qr.InputError, "odd"
    yield "experts", changed("mixtral", expert_used_count=9), qr.InputError, "is 9, expected 1 to 4"
    yield "architecture", dataclasses.replace(llama, architecture="nonesuch"), qr.InputError, "nonesuch.*llama, olmo2"
    nan = np.full((N_EMBD,), np.nan, np.float32)
    yield "NaN norm", dataclasses.replace(llama, fixed={"output_norm.weight": nan}), qr.FormatError, "output_norm.weight: value 0 is NaN"
    tokens: dict[str, object] = {"tokenizer.ggml.tokens": ["a", "b"]}
    yield "vocabulary", dataclasses.replace(llama, other_metadata=tokens), qr.FormatError, "2 tokens.*96 rows"


@pytest.mark.parametrize("case", list(damaged()), ids=lambda case: case[0])
def test_a_file_that_contradicts_itself_is_refused(case: tuple[str, Model, type[Exception], str], tmp_path: Path) -> None:
    _, model, error, message = case
    path = write(tmp_path, model)
    with pytest.raises(error, match=message):
        qr.Session(path)
