"""Perplexity and divergence against their definitions, and against what llama-perplexity found on the same tiny models."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import quantrs as qr
from conftest import Ran
from family_models import MODELS, N_EMBD, N_VOCAB, TOKENS, weights
from quantrs.evaluation import MIN_CTX, kl_divergence, perplexity
from quantrs.whole_files import read_text

BOS = 0
CHARACTERS = ["<s>", "Ġ", "Ċ", *map(chr, range(ord("!"), ord("!") + N_VOCAB - 3))]
TEXT = "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a wife.\n" * 3


def write(folder: Path, name: str = "model", *, add_bos: bool = True, n_vocab: int = N_VOCAB, **fixed: np.ndarray) -> Path:
    """A tiny llama that reads ASCII character by character."""
    model = copy.deepcopy(MODELS["llama"])
    tokens = [*CHARACTERS, *(f"token{i}" for i in range(n_vocab - N_VOCAB))]
    model.other_metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, *[1] * (n_vocab - 1)],
        "tokenizer.ggml.merges": ["zzz zzz"],
        "tokenizer.ggml.bos_token_id": BOS,
        "tokenizer.ggml.eos_token_id": BOS,
        "tokenizer.ggml.add_bos_token": add_bos,
    }
    model.metadata["vocab_size"] = n_vocab
    for tensor in ("token_embd.weight", "output.weight"):
        model.shapes[tensor] = (n_vocab, N_EMBD)
    model.fixed |= {f"{key.replace('__', '.')}.weight": value for key, value in fixed.items()}
    path = folder / f"{name}.gguf"
    path.write_bytes(model.to_bytes())
    return path


def other(folder: Path) -> Path:
    """Another model with the same tokens."""
    shape = (N_VOCAB, N_EMBD)
    return write(folder, "other", output=weights("output.weight", shape) + weights("noise", shape))


def ids_of(text: str) -> list[int]:
    return [CHARACTERS.index({" ": "Ġ", "\n": "Ċ"}.get(c, c)) for c in text]


def log_probabilities(session: qr.Session, ids: list[int]) -> np.ndarray:
    logits = session.logits(ids).astype(np.float64)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def scored_chunks(text: str, ctx: int, add_bos: bool) -> list[list[int]]:
    ids = [BOS] * add_bos + ids_of(text)
    chunks = [ids[i : i + ctx] for i in range(0, len(ids) - ctx + 1, ctx)]
    return [[BOS, *chunk[1:]] if add_bos else chunk for chunk in chunks]


def by_definition(session: qr.Session, text: str, ctx: int, add_bos: bool) -> np.ndarray:
    """-ln p of the tokens of the second halves."""
    found = []
    for chunk in scored_chunks(text, ctx, add_bos):
        log_p = log_probabilities(session, chunk)
        found += [-log_p[i, chunk[i + 1]] for i in range(ctx // 2, ctx - 1)]
    return np.array(found)


@pytest.mark.parametrize("add_bos", [True, False])
@pytest.mark.parametrize("ctx", [8, 31, 100])
def test_perplexity_is_what_the_definition_says(ctx: int, add_bos: bool, tmp_path: Path) -> None:
    session = qr.Session(write(tmp_path, add_bos=add_bos), n_ctx=ctx)
    nll = by_definition(session, TEXT.removesuffix("\n"), ctx, add_bos)
    found = session.perplexity(TEXT, ctx=ctx)
    assert found.perplexity == pytest.approx(np.exp(nll.mean()), rel=1e-5)
    assert found.std_error == pytest.approx(found.perplexity * nll.std() / np.sqrt(len(nll) - 1), rel=1e-4)
    assert (found.n_scored, found.n_chunks, found.ctx) == (len(nll), len(nll) // (ctx - 1 - ctx // 2), ctx)
    assert found.n_tokens == len(TEXT) - 1 + add_bos


def test_divergence_is_what_the_definition_says(tmp_path: Path) -> None:
    ctx = 32
    model, reference = qr.Session(write(tmp_path), n_ctx=ctx), qr.Session(other(tmp_path), n_ctx=ctx)
    kl, same, delta_p = [], [], []
    for chunk in scored_chunks(TEXT.removesuffix("\n"), ctx, True):
        q, p = (log_probabilities(session, chunk)[ctx // 2 : -1] for session in (model, reference))
        kl += list((np.exp(p) * (p - q)).sum(axis=1))
        same += list(p.argmax(axis=1) == q.argmax(axis=1))
        right = np.arange(len(p)), chunk[ctx // 2 + 1 :]
        delta_p += list(np.exp(q[right]) - np.exp(p[right]))
    found = model.kl_divergence(reference, TEXT, ctx=ctx)
    expected = (np.mean(kl), np.median(kl), np.quantile(kl, 0.9), np.quantile(kl, 0.95), np.quantile(kl, 0.99), max(kl))
    assert (found.kl_mean, found.kl_median, found.kl_p90, found.kl_p95, found.kl_p99, found.kl_max) == pytest.approx(expected, rel=1e-4)
    assert found.same_top == np.mean(same)
    assert 0 < found.same_top < 1
    assert (found.delta_p_mean, found.delta_p_rms) == pytest.approx((np.mean(delta_p), np.sqrt(np.mean(np.square(delta_p)))), rel=1e-4)
    assert found.perplexity == pytest.approx(model.perplexity(TEXT, ctx=ctx).perplexity, rel=1e-9)
    assert found.reference_perplexity == pytest.approx(reference.perplexity(TEXT, ctx=ctx).perplexity, rel=1e-6)
    assert found.log_ratio == pytest.approx(np.log(found.perplexity / found.reference_perplexity), rel=1e-6)


def test_llama_perplexity_finds_the_same(tmp_path: Path) -> None:
    """Figures of llama-perplexity (llama.cpp 0c1e57098, -c 32 -ctk f32 -ctv f32); it keeps the reference's logits in 16 bits."""
    reference = qr.Session(other(tmp_path), n_ctx=32)
    model, without_bos = (qr.Session(write(tmp_path, f"{add_bos}", add_bos=add_bos), n_ctx=32) for add_bos in (True, False))
    for session, value, std_error in (
        (model, 1014.7998, 186.42737),
        (without_bos, 951.8856, 177.18350),
        (reference, 6723.5394, 1658.27627),
    ):
        found = session.perplexity(TEXT, ctx=32)
        assert (found.perplexity, found.std_error) == pytest.approx((value, std_error), rel=2e-3)
    found = model.kl_divergence(reference, TEXT, ctx=32)
    assert (found.kl_mean, found.kl_std_error) == pytest.approx((1.567332, 0.060548), rel=1e-3)
    assert (found.kl_median, found.kl_p90, found.kl_p95) == pytest.approx((1.457910, 2.586018, 3.126778), rel=3e-3)
    assert (found.kl_p99, found.kl_p999, found.kl_max) == pytest.approx((3.935864, 4.397511, 4.429227), rel=3e-3)
    assert found.same_top == pytest.approx(0.22424, abs=1.5 / found.n_scored)


def test_a_model_does_not_diverge_from_itself(tmp_path: Path) -> None:
    path = write(tmp_path)
    found = qr.Session(path, n_ctx=40).kl_divergence(qr.Session(path, n_ctx=40), TEXT, ctx=40)
    assert (found.kl_mean, found.kl_max, found.kl_median, found.same_top, found.log_ratio) == (0, 0, 0, 1, 0)


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_the_log_probabilities_of_the_logits(name: str, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(MODELS[name].to_bytes())
    session = qr.Session(tmp_path / "model.gguf")
    log_p = log_probabilities(session, TOKENS)
    session.engine.reset()
    assert session.engine.score(TOKENS, 3) == pytest.approx([-log_p[i, TOKENS[i + 1]] for i in range(3, len(TOKENS) - 1)], abs=1e-5)
    assert session.engine.n_past == session.engine.n_shared(TOKENS) == len(TOKENS)


def test_batches_and_stretches_of_the_vocabulary_join_without_a_seam(tmp_path: Path) -> None:
    n_vocab, n = 9000, 1200
    session = qr.Session(write(tmp_path, n_vocab=n_vocab), n_ctx=n)
    ids = [int(i) for i in np.random.default_rng(0).integers(0, n_vocab, n)]
    log_p = log_probabilities(session, ids)
    for first in (0, 511, 512, 700, n - 2, n - 1):
        session.engine.reset()
        want = [-log_p[i, ids[i + 1]] for i in range(first, n - 1)]
        assert session.engine.score(ids, first) == pytest.approx(want, abs=1e-4), first


def test_results_do_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    paths = write(tmp_path, n_vocab=5000), write(tmp_path, "b", n_vocab=5000, output=np.eye(5000, N_EMBD, dtype=np.float32))
    found = []
    for threads in (1, 3):
        a, b = (qr.Session(path, threads=threads, n_ctx=64) for path in paths)
        found.append(kl_divergence(a, b, TEXT, ctx=64))
    assert found[0] == found[1]


def test_one_newline_at_the_end_is_dropped_and_a_spelled_control_token_is_text(tmp_path: Path) -> None:
    session = qr.Session(write(tmp_path, add_bos=False), n_ctx=8)
    assert session.perplexity("x" * 20 + "\n\n", ctx=8).n_tokens == 21
    assert session.perplexity("x" * 20 + "<s>", ctx=8).n_tokens == 23


def test_chunks_can_be_limited_and_watched(tmp_path: Path) -> None:
    session = qr.Session(write(tmp_path), n_ctx=16)
    steps = []
    found = perplexity(session, TEXT, ctx=16, max_chunks=3, watch=steps.append)
    assert [(s.n_done, s.n_chunks, s.kl_mean) for s in steps] == [(1, 3, None), (2, 3, None), (3, 3, None)]
    assert steps[-1].perplexity == pytest.approx(found.perplexity)
    assert found.n_scored == 3 * 7


def test_a_text_that_is_too_short_is_refused_with_both_numbers(tmp_path: Path) -> None:
    session = qr.Session(write(tmp_path), n_ctx=64)
    for text, n in (("", 1), ("x" * 126, 127)):
        with pytest.raises(qr.InputError, match=rf"the text has {n} tokens, expected at least 128, twice the 64 of a chunk"):
            session.perplexity(text, ctx=64)
    assert session.perplexity("x" * 127, ctx=64).n_chunks == 2


def test_numbers_out_of_range_are_refused(tmp_path: Path) -> None:
    session = qr.Session(write(tmp_path), n_ctx=64)
    with pytest.raises(qr.InputError, match=f"ctx: found 7, expected at least {MIN_CTX}"):
        session.perplexity(TEXT, ctx=7)
    with pytest.raises(qr.InputError, match="holds 64 tokens, expected the 65 of a chunk"):
        session.perplexity(TEXT, ctx=65)
    with pytest.raises(qr.InputError, match="holds 64 tokens, expected the 65 of a chunk"):
        qr.Session(write(tmp_path), n_ctx=65).kl_divergence(session, TEXT, ctx=65)
    with pytest.raises(qr.InputError, match="max_chunks: found 0"):
        perplexity(session, TEXT, ctx=8, max_chunks=0)


def test_models_with_other_tokens_are_not_compared(tmp_path: Path) -> None:
    session = qr.Session(write(tmp_path), n_ctx=16)
    with pytest.raises(qr.InputError, match="96 and 100 tokens"):
        session.kl_divergence(qr.Session(write(tmp_path, "b", n_vocab=100), n_ctx=16), TEXT, ctx=16)
    data = write(tmp_path, "c").read_bytes()
    (tmp_path / "c.gguf").write_bytes(data.replace("Ċ".encode(), "Č".encode()))
    with pytest.raises(qr.InputError, match="token 2 is 'Ċ' in one and 'Č' in the other"):
        session.kl_divergence(qr.Session(tmp_path / "c.gguf", n_ctx=16), TEXT, ctx=16)
    with pytest.raises(qr.InputError, match="the same session"):
        session.kl_divergence(session, TEXT, ctx=16)
    with pytest.raises(qr.InputError, match="the engine itself"):
        session.engine.compare(session.engine, TOKENS, 0)
    with pytest.raises(qr.InputError, match="vocabulary"):
        session.engine.compare(qr.Session(tmp_path / "b.gguf", n_ctx=16).engine, TOKENS[:4], 0)


def test_weights_that_are_not_finite_are_errors_that_say_whose(tmp_path: Path) -> None:
    nan = np.full((N_VOCAB, N_EMBD), np.nan, np.float32)
    good, bad = qr.Session(write(tmp_path), n_ctx=16), qr.Session(write(tmp_path, "bad", output=nan), n_ctx=16)
    with pytest.raises(qr.FormatError, match=r"^output.weight: the result is not finite"):
        bad.perplexity(TEXT, ctx=16)
    assert bad.engine.n_past == 0
    with pytest.raises(qr.FormatError, match=r"output\.weight of the reference"):
        good.kl_divergence(bad, TEXT, ctx=16)
    with pytest.raises(qr.FormatError, match=r"^output.weight: "):
        bad.kl_divergence(good, TEXT, ctx=16)


def test_a_text_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(qr.FileError, match=r"nonesuch.txt: cannot be read: No such file"):
        read_text(tmp_path / "nonesuch.txt")
    (tmp_path / "latin.txt").write_bytes(b"off\xe9")
    with pytest.raises(qr.FormatError, match=r"latin.txt: byte 3 is not UTF-8"):
        read_text(tmp_path / "latin.txt")
    (tmp_path / "dos.txt").write_bytes(b"a\r\nb\r\n")
    assert read_text(tmp_path / "dos.txt") == "a\r\nb\r\n"


def test_the_command_prints_what_the_library_finds(tmp_path: Path, command: Callable[..., Ran]) -> None:
    model, reference, text = write(tmp_path), other(tmp_path), tmp_path / "t.txt"
    text.write_text(TEXT)
    session = qr.Session(model, n_ctx=32)
    ran = command("eval", model, "--text", text, "--ctx", "32", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out) == session.perplexity(TEXT, ctx=32).to_json()
    ran = command("eval", model, "--text", text, "--ctx", "32", "--reference", reference, "--threads", "1", "--json")
    assert json.loads(ran.out) == session.kl_divergence(qr.Session(reference, n_ctx=32), TEXT, ctx=32).to_json()
    assert {"perplexity", "std_error", "kl_mean", "kl_median", "kl_p99", "kl_max", "same_top"} <= json.loads(ran.out).keys()
    out = command("eval", model, "--text", text, "--ctx", "32", "--chunks", "2").out
    assert "tokens scored in 2 chunks of 32" in out
    assert out.startswith("perplexity ")
    assert "KL divergence, 99 %" in command("eval", model, "--text", text, "--ctx", "32", "--reference", reference).out


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ((), 2, "--text"),
        (("--text", "t.txt", "--ctx", "7"), 2, "a number of 8 or more"),
        (("--text", "t.txt", "--chunks", "0"), 2, "a number of 1 or more"),
        (("--text", "nonesuch.txt"), 1, "nonesuch.txt: cannot be read"),
        (("--text", "empty.txt"), 1, "the text has 1 tokens, expected at least 1024"),
        (("--text", "t.txt", "--ctx", "16", "--reference", "nonesuch.gguf"), 1, "nonesuch.gguf"),
        (("--text", "t.txt", "--ctx", "16", "--kv-type", "q8_0"), 1, "16 values"),
    ],
)
def test_the_command_refuses_and_says_why(
    args: tuple[str, ...], code: int, words: str, tmp_path: Path, command: Callable[..., Ran]
) -> None:
    (tmp_path / "t.txt").write_text(TEXT)
    (tmp_path / "empty.txt").write_text("")
    ran = command("eval", write(tmp_path), *args, cwd=tmp_path)
    assert (ran.code, ran.out) == (code, "")
    assert words in ran.err
    assert "Traceback" not in ran.err
