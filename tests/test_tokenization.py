"""Tokenizers from metadata: the merging loop, special tokens, text back from ids. Expected ids follow from the rules by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import quantrs
from gguf_bytes import gguf
from quantrs import _native
from quantrs.tokenization import Tokenizer
from quantrs.tokenization.encoders import BYTE_OF_CHARACTER
from quantrs.tokenization.pair_merging import merge_pairs
from quantrs.tokenization.pre_tokenizers import PRE_TOKENIZERS, word_splitter

CONTROL, USER_DEFINED, BYTE = 3, 4, 6
BYTES = list(BYTE_OF_CHARACTER)
HARD_TEXT = "Hi 👨‍👩‍👧 你好\r\n\t  don't 12345 é e\u0301 \u00a0\u3000\u200b\x01 <|end|>!"


def tokenizer(tmp_path: Path, **metadata: object) -> Tokenizer:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf({}, {f"tokenizer.ggml.{key}": value for key, value in metadata.items()}))
    return Tokenizer.of_gguf(_native.Gguf.open(path))


def byte_level(tmp_path: Path, pre: str = "gpt-2", **metadata: object) -> Tokenizer:
    tokens = [*BYTES, "he", "Ġhe", "her", "<|end|>", "<mine>"]
    types = [1] * (len(tokens) - 2) + [CONTROL, USER_DEFINED]
    return tokenizer(tmp_path, model="gpt2", pre=pre, tokens=tokens, token_type=types, merges=["h e", "Ġ he", "he r"], **metadata)


def sentence_piece(tmp_path: Path, **metadata: object) -> Tokenizer:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "▁", "a", "b", "ab", "▁a", "bab"]
    types = [2, CONTROL, CONTROL, *[BYTE] * 256, *[1] * 6]
    return tokenizer(tmp_path, model="llama", tokens=tokens, token_type=types, scores=[0] * 259 + [-4, -5, -6, -1, -2, -3], **metadata)


def test_equal_ranks_merge_from_the_left() -> None:
    assert merge_pairs(list("aaaaa"), lambda a, b: 0 if a == b == "a" else None) == ["aa", "aa", "a"]


def test_byte_level_merges_follow_their_rank(tmp_path: Path) -> None:
    t = byte_level(tmp_path)
    ids = {token: i for i, token in enumerate(t.vocabulary.tokens)}
    assert t.encode("her he", add_special=False) == [ids["her"], ids["Ġhe"]]


@pytest.mark.parametrize("pre", sorted(PRE_TOKENIZERS))
def test_every_pre_tokenizer_keeps_every_byte(pre: str, tmp_path: Path) -> None:
    t = byte_level(tmp_path, pre)
    assert t.decode(t.encode(HARD_TEXT, add_special=False, parse_special=False)) == HARD_TEXT
    assert "".join(word_splitter(PRE_TOKENIZERS[pre].patterns)("a b")) == "aĠb"


@pytest.mark.parametrize(
    ("pre", "words"),
    [
        ("gpt-2", ["I", "'ve", "Ġ1234", "ĠX", "Ċ"]),
        ("smollm", ["I", "'ve", "Ġ", "1", "2", "3", "4", "ĠX", "Ċ"]),
        ("llama-bpe", ["I", "'ve", "Ġ", "123", "4", "ĠX", "Ċ"]),
        ("qwen2", ["I", "'ve", "Ġ", "1", "2", "3", "4", "ĠX", "Ċ"]),
    ],
)
def test_words_are_cut_as_the_models_cut_them(pre: str, words: list[str]) -> None:
    assert word_splitter(PRE_TOKENIZERS[pre].patterns)("I've 1234 X\n") == words


def test_control_tokens_are_parsed_only_when_asked_and_user_tokens_always(tmp_path: Path) -> None:
    t = byte_level(tmp_path)
    end, mine = t.vocabulary.ids["<|end|>"], t.vocabulary.ids["<mine>"]
    assert t.encode("<mine><|end|>", add_special=False) == [mine, end]
    assert t.encode("<mine><|end|>", add_special=False, parse_special=False)[0] == mine
    assert end not in t.encode("<|end|>", add_special=False, parse_special=False)
    assert end in t.end_ids


def test_sentence_piece_merges_by_score_and_puts_a_space_first(tmp_path: Path) -> None:
    t = sentence_piece(tmp_path)
    ids = t.vocabulary.ids
    assert t.encode("ab") == [ids["<s>"], ids["▁"], ids["ab"]]
    assert t.encode("a") == [ids["<s>"], ids["▁a"]]
    assert t.decode(t.encode("ab a")) == "ab a"


def test_sentence_piece_falls_back_to_bytes(tmp_path: Path) -> None:
    t = sentence_piece(tmp_path)
    assert t.encode("é", add_special=False)[1:] == [3 + 0xC3, 3 + 0xA9]
    assert t.decode(t.encode(HARD_TEXT)) == HARD_TEXT


def test_sentence_piece_of_long_text_equals_its_short_way(tmp_path: Path) -> None:
    t = sentence_piece(tmp_path)
    assert t.encode(" ab aa a" * 1000, add_special=False)[1:9] == t.encode(" ab aa a" * 3, add_special=False)[1:9]


@pytest.mark.parametrize(("flag", "first"), [(True, [1]), (False, [])])
def test_the_begin_token_is_added_as_the_file_says(flag: bool, first: list[int], tmp_path: Path) -> None:
    t = sentence_piece(tmp_path, add_bos_token=flag, add_space_prefix=False)
    assert t.encode("a") == [*first, t.vocabulary.ids["a"]]


def test_a_stream_holds_an_unfinished_character_back(tmp_path: Path) -> None:
    t = byte_level(tmp_path)
    stream = t.stream()
    pieces = [stream.push(i) for i in t.encode("a👍b", add_special=False)]
    assert pieces == ["a", "", "", "", "👍", "b"]
    assert stream.finish() == ""


def test_tokenizer_json_beside_the_model_is_used(tmp_path: Path) -> None:
    added = {"id": 256, "content": "he", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    model = {"type": "BPE", "vocab": {char: i for i, char in enumerate(BYTES)} | {"he": 256}, "merges": []}
    content = {
        "version": "1.0",
        "added_tokens": [added],
        "model": model,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    t = byte_level(tmp_path, "nonesuch")
    assert t.encode("her", add_special=False) == [256, t.vocabulary.ids["r"]]


def test_unknown_names_are_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(quantrs.FormatError, match=r"tokenizer\.ggml\.pre: found 'nonesuch'.*llama-bpe"):
        byte_level(tmp_path, "nonesuch")
    with pytest.raises(quantrs.FormatError, match=r"tokenizer\.ggml\.model: found 'odd'"):
        tokenizer(tmp_path, model="odd", tokens=["a"])


def test_a_lone_surrogate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(quantrs.InputError, match="lone surrogate at character 1"):
        byte_level(tmp_path).encode("a\ud800")


def test_too_few_token_types_are_refused(tmp_path: Path) -> None:
    with pytest.raises(quantrs.FormatError, match="found 1 numbers, expected one for each of the 2"):
        tokenizer(tmp_path, model="gpt2", tokens=["a", "b"], token_type=[1])
