"""Generated text: where it ends, what is held back, whose tokens are in the context."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

import numpy as np
import pytest

import quantrs as qr
from family_models import MODELS, TOKENS
from quantrs.errors import FormatError, InputError, UsageError
from quantrs.stop_strings import StopStrings
from speaking_model import BEGIN, END, THINK, ids_of, write_speaker


def speaker(tmp_path: Path, text: str = "abcdefg", n_ctx: int | None = None, **options: object) -> qr.Session:
    return qr.Session(write_speaker(tmp_path / "m.gguf", text, **options), n_ctx=n_ctx)  # type: ignore[arg-type]


def family(tmp_path: Path, name: str = "llama") -> qr.Session:
    path = tmp_path / f"{name}.gguf"
    path.write_bytes(MODELS[name].to_bytes())
    return qr.Session(path)


def test_pieces_join_to_the_text_and_the_end_token_is_not_shown(tmp_path: Path) -> None:
    pieces = speaker(tmp_path).generate("a", temperature=0)
    assert list(pieces) == list("bcdefg")
    assert (pieces.text, pieces.ending, pieces.ids) == ("bcdefg", "end", ids_of("bcdefg"))
    assert pieces.n_steps == 6
    assert pieces.rate > 0
    assert pieces.prompt_rate > 0


def test_pieces_are_whole_characters(tmp_path: Path) -> None:
    assert list(speaker(tmp_path, "a👍é").generate("a", temperature=0)) == ["👍", "é"]


def test_an_unfinished_character_at_the_end_becomes_a_replacement(tmp_path: Path) -> None:
    assert list(speaker(tmp_path, "a👍").generate("a", temperature=0, max_tokens=2)) == ["\ufffd"]


@pytest.mark.parametrize(("max_tokens", "text"), [(0, ""), (3, "bcd")])
def test_a_text_has_at_most_the_wanted_tokens(max_tokens: int, text: str, tmp_path: Path) -> None:
    pieces = speaker(tmp_path).generate("a", temperature=0, max_tokens=max_tokens)
    assert ("".join(pieces), pieces.ending) == (text, "length")


@pytest.mark.parametrize(
    ("stop", "text"), [("de", "bc"), (["x", "ef"], "bcd"), (["cdx", "efg"], "bcd"), ("gh", "bcdefg"), (["fg", "bc"], ""), ("g", "bcdef")]
)
def test_a_stop_string_may_span_pieces_and_is_not_shown(stop: str | list[str], text: str, tmp_path: Path) -> None:
    pieces = speaker(tmp_path).generate("a", temperature=0, stop=stop)
    assert "".join(pieces) == text
    assert pieces.ending == ("end" if stop == "gh" else "stop")


def test_text_is_held_back_only_while_it_can_become_a_stop_string() -> None:
    stops = StopStrings(["aab", "ac"])
    assert [stops.push(x) for x in ("x", "a", "a", "a", "d", "a")] == ["x", "", "", "a", "aad", ""]
    assert stops.finish() == "a"


def test_of_stop_strings_in_one_piece_the_first_place_counts() -> None:
    stops = StopStrings(["cd", "bc"])
    assert stops.push("abcd") == "a"
    assert (stops.found, stops.push("more"), stops.finish()) == ("bc", "", "")


def test_ignoring_the_end_chooses_something_else(tmp_path: Path) -> None:
    pieces = speaker(tmp_path, "ab").generate("a", temperature=0, max_tokens=4, ignore_eos=True)
    assert len(list(pieces)) > 0
    assert len(pieces.ids) == 4
    assert END not in pieces.ids


def test_control_tokens_are_chosen_but_not_shown(tmp_path: Path) -> None:
    session = qr.Session(write_speaker(tmp_path / "m.gguf", [*ids_of("ab"), THINK, *ids_of("c")]))
    pieces = session.generate("a", temperature=0)
    assert list(pieces) == ["b", "c"]
    assert THINK in pieces.ids


def test_a_full_context_ends_the_text(tmp_path: Path) -> None:
    pieces = speaker(tmp_path, n_ctx=4).generate("ab", temperature=0)
    assert ("".join(pieces), pieces.ending) == ("cde", "context")


def test_a_prompt_longer_than_the_context_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"found 6 tokens, but the context holds 5.*--ctx"):
        speaker(tmp_path, n_ctx=5).generate("abcdef")


def test_a_prompt_may_fill_the_context(tmp_path: Path) -> None:
    assert "".join(speaker(tmp_path, n_ctx=3).generate("abc", temperature=0)) == "d"


@pytest.mark.parametrize(
    ("prompt", "options", "error", "message"),
    [
        ("", {}, InputError, "found no tokens"),
        ([5, 10**6], {}, InputError, "found the token 1000000"),
        ([-1], {}, InputError, "found the token -1"),
        ("a", {"max_tokens": -1}, UsageError, "max_tokens"),
        ("a", {"stop": ["b", ""]}, UsageError, "empty string"),
        ("a", {"temperature": -1}, UsageError, "temperature"),
        ("a\ud800", {}, InputError, "surrogate"),
    ],
)
def test_senseless_requests_are_refused_at_once(
    prompt: str | list[int], options: dict[str, object], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        speaker(tmp_path).generate(prompt, **options)  # type: ignore[arg-type]


def test_a_begin_token_goes_before_the_text_where_the_model_wants_it(tmp_path: Path) -> None:
    session = speaker(tmp_path, metadata={"tokenizer.ggml.add_bos_token": True})
    assert session.tokenize("a") == [BEGIN, *ids_of("a")]
    assert session.generate("a").prompt_ids == [BEGIN, *ids_of("a")]
    assert session.generate("").prompt_ids == [BEGIN]
    assert session.generate(ids_of("a")).prompt_ids == ids_of("a")


def test_an_end_token_is_no_part_of_a_prompt(tmp_path: Path) -> None:
    session = speaker(tmp_path, metadata={"tokenizer.ggml.add_eos_token": True})
    assert session.tokenize("a") == [*ids_of("a"), END]
    assert session.generate("a").prompt_ids == ids_of("a")


def test_a_text_that_is_left_halfway_leaves_the_session_usable(tmp_path: Path) -> None:
    session = speaker(tmp_path)
    pieces = session.generate("a", temperature=0)
    assert next(pieces) == "b"
    del pieces
    assert "".join(session.generate("a", temperature=0)) == "bcdefg"


def test_texts_that_take_turns_do_not_mix(tmp_path: Path) -> None:
    session = family(tmp_path)
    alone = [ids_after(session, prompt) for prompt in (TOKENS[:9], TOKENS[3:7])]
    first, second = contexts = [list(TOKENS[:9]), list(TOKENS[3:7])]
    for _ in range(6):
        for ids in contexts:
            ids.append(int(session.engine.next_logits(ids).argmax()))
    assert [first[9:], second[4:]] == alone


def ids_after(session: qr.Session, prompt: list[int]) -> list[int]:
    session.engine.reset()
    ids = list(prompt)
    for _ in range(6):
        ids.append(int(session.engine.next_logits(ids).argmax()))
    return ids[len(prompt) :]


def test_generations_of_one_session_may_take_turns(tmp_path: Path) -> None:
    session = speaker(tmp_path)
    pairs = zip_longest(session.generate("a", temperature=0), session.generate("zc", temperature=0), fillvalue="")
    assert ["".join(x) for x in zip(*pairs, strict=True)] == ["bcdefg", "defg"]


@pytest.mark.parametrize("name", ["gemma3", "llama", "qwen3moe", "gpt2"])
def test_logits_after_a_shared_beginning_equal_those_of_a_fresh_context(name: str, tmp_path: Path) -> None:
    session = family(tmp_path, name)
    fresh = session.logits(TOKENS)
    other = [*TOKENS[:8], *reversed(TOKENS[:5])]
    session.engine.reset()
    for ids, row in ((TOKENS[:11], fresh[10]), (other, session.logits(other)[-1]), (TOKENS, fresh[-1]), (TOKENS, fresh[-1])):
        got = session.engine.next_logits(ids)
        assert np.abs(got - row).max() < 1e-5 * np.abs(fresh).max()
        assert session.engine.n_past == len(ids)


def test_only_what_the_context_lacks_is_computed(tmp_path: Path) -> None:
    session = family(tmp_path)
    session.engine.next_logits(TOKENS)
    assert session.engine.n_shared([*TOKENS[:5], 0, 0]) == 5
    assert session.engine.n_shared([]) == 0
    session.engine.truncate(3)
    assert session.engine.n_shared(TOKENS) == 3
    session.hidden(TOKENS[5:])
    assert session.engine.n_shared(TOKENS) == 0


def test_an_error_leaves_a_context_that_is_as_it_says(tmp_path: Path) -> None:
    session = family(tmp_path)
    want = session.engine.next_logits(TOKENS)
    for bad in ([*TOKENS[:4], 10**6], [0] * (session.n_ctx + 1), []):
        with pytest.raises(InputError):
            session.engine.next_logits(bad)
        assert np.abs(session.engine.next_logits(TOKENS) - want).max() < 1e-5 * np.abs(want).max()


def test_reuse_keeps_the_common_beginning(tmp_path: Path) -> None:
    session = speaker(tmp_path)
    text = "".join(session.generate("zza", temperature=0, max_tokens=3))
    again = session.generate("zza" + text, temperature=0, reuse=True)
    assert "".join(again) == "efg"
    assert again.n_reused == len("zza" + text) - 1
    fresh = session.generate("zza" + text, temperature=0)
    assert "".join(fresh) == "efg"
    assert fresh.n_reused == 0


def test_a_long_prompt_is_read_in_batches(tmp_path: Path) -> None:
    session = speaker(tmp_path)
    pieces = session.generate("z" * 1500 + "a", temperature=0)
    assert "".join(pieces) == "bcdefg"
    assert session.engine.n_past == 1507


def test_a_seed_decides_the_text_for_any_thread_count(tmp_path: Path) -> None:
    path = write_speaker(tmp_path / "m.gguf", "abc")
    texts = ["".join(qr.Session(path, threads=n).generate("z", seed=7, max_tokens=30, temperature=2.0)) for n in (1, 2, 2)]
    assert texts[0] == texts[1] == texts[2]
    other = "".join(qr.Session(path).generate("z", seed=8, max_tokens=30, temperature=2.0))
    assert other != texts[0]


def test_chat_renders_the_template_and_stops_at_the_end_of_the_answer(tmp_path: Path) -> None:
    session = speaker(tmp_path, "\nHi!")
    answer = session.chat([{"role": "user", "content": "Hello"}], temperature=0)
    assert "".join(answer) == "Hi!"
    assert session.tokenizer.decode(answer.prompt_ids, special=True) == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"


def test_a_further_turn_of_a_chat_computes_only_what_is_new(tmp_path: Path) -> None:
    session = speaker(tmp_path, "\nHi!")
    messages = [{"role": "user", "content": "Hello"}]
    first = session.chat(messages, temperature=0)
    text = "".join(first)
    messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "And?"}]
    second = session.chat(messages, temperature=0)
    assert "".join(second) == "Hi!"
    assert second.n_reused == len(first.prompt_ids) + len(first.ids)


@pytest.mark.parametrize("template", ["{{ bos_token }}{{ messages[0].content }}", "{{ messages[0].content }}"])
def test_a_chat_begins_with_one_begin_token_whoever_puts_it_there(template: str, tmp_path: Path) -> None:
    session = speaker(tmp_path, metadata={"tokenizer.ggml.add_bos_token": True, "tokenizer.chat_template": template})
    assert session.chat([{"role": "user", "content": "a"}]).prompt_ids == [BEGIN, *ids_of("a")]


def test_a_template_that_refuses_is_a_format_error(tmp_path: Path) -> None:
    session = speaker(tmp_path, metadata={"tokenizer.chat_template": "{{ raise_exception('roles must alternate') }}"})
    with pytest.raises(FormatError, match="roles must alternate"):
        session.chat([{"role": "user", "content": "a"}])


def test_an_embedding_is_a_pooled_hidden_state_of_length_one(tmp_path: Path) -> None:
    session = family(tmp_path)
    hidden = session.hidden(TOKENS)
    for pooling, want in (("mean", hidden.mean(axis=0)), ("last", hidden[-1]), ("cls", hidden[0])):
        got = session.embed(TOKENS, pooling=pooling, normalize=False)  # type: ignore[arg-type]
        assert got.dtype == np.float32
        assert np.allclose(got, want, atol=1e-6)
        unit = session.embed(TOKENS, pooling=pooling)  # type: ignore[arg-type]
        assert np.linalg.norm(unit) == pytest.approx(1, abs=1e-6)
        assert np.allclose(unit * np.linalg.norm(want), want, atol=1e-5)


def test_embedding_takes_text_and_refuses_unknown_pooling(tmp_path: Path) -> None:
    session = speaker(tmp_path)
    assert np.array_equal(session.embed("ab"), session.embed(ids_of("ab")))
    with pytest.raises(InputError, match=r"pooling: found 'max', expected mean, last or cls"):
        session.embed("a", pooling="max")  # type: ignore[arg-type]
    with pytest.raises(InputError):
        session.embed("")
