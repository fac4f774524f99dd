"""Tokenizers of Hugging Face folders as metadata, and back: keys of llama.cpp's converter, ids of the libraries that made the files."""

from __future__ import annotations

import base64
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers

import quantrs
from conftest import GOLDEN
from gguf_bytes import gguf as gguf_bytes
from quantrs import _native
from quantrs.tokenization import Tokenizer
from quantrs.tokenization.detect_pre import PROBES
from quantrs.tokenization.sentencepiece_model import Piece, SentencePieceModel
from quantrs.tokenization.to_gguf import tokenizer_keys
from quantrs.tokenization.to_huggingface import tokenizer_files

CASES: dict[str, dict[str, object]] = json.loads(lzma.decompress((GOLDEN / "tokenizer_keys" / "cases.json.xz").read_bytes()))
CUT = "llama-cut"  # has fewer rows than pieces: single characters are missing, which only llama.cpp's way of merging can stand
WITH_MODEL = sorted(name for name, case in CASES.items() if "sentencepiece_ids" in case)
TYPES = {"STRING": "string", "UINT32": "u32", "BOOL": "bool"}
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6

Keys = dict[str, tuple[object, str]]


def folder(case: str, tmp_path: Path) -> Path:
    """The files of a case, on disk."""
    path = tmp_path / case
    path.mkdir()
    for name, content in CASES[case]["files"].items():  # type: ignore[attr-defined]
        (path / name).write_bytes(base64.b64decode(content))
    return path


def keys_of(path: Path, pre: str | None = "gpt-2") -> Keys:
    config = json.loads((path / "config.json").read_text())
    return {key: (value, kind) for key, value, kind in tokenizer_keys(path, config, pre=pre, n_vocab=config["vocab_size"])}


def model_of(path: Path, keys: Keys, architecture: str = "llama") -> _native.Gguf:
    """A GGUF file of these keys, in a folder of its own."""
    header = _native.GgufHeader.new(3)
    header.set("general.architecture", architecture, "string")
    for key, (value, kind) in keys.items():
        header.set(key, value, kind)  # type: ignore[arg-type]
    path.mkdir(exist_ok=True)
    (path / "m.gguf").write_bytes(header.to_bytes())
    return _native.Gguf.open(path / "m.gguf")


def edit(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Change a JSON file in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("case", sorted(CASES))
def test_keys_are_those_of_the_reference_converter(case: str, tmp_path: Path) -> None:
    got = keys_of(folder(case, tmp_path))
    want = {key: (value, kind) for key, value, kind in CASES[case]["keys"]}  # type: ignore[attr-defined]
    assert list(got) == list(want)
    for key, (value, kind) in want.items():
        assert got[key][0] == (pytest.approx(value, rel=1e-7) if key.endswith("scores") else value), key
        assert got[key][1] == TYPES.get(kind, got[key][1]), key


@pytest.mark.parametrize("case", sorted(set(WITH_MODEL) - {CUT, "llama-added"}))  # the latter's add_prefix_space contradicts its model
def test_ids_are_those_of_the_sentencepiece_library(case: str, tmp_path: Path) -> None:
    tokenizer = Tokenizer.of_gguf(model_of(tmp_path / "m", keys_of(folder(case, tmp_path))))
    for text, ids in CASES[case]["sentencepiece_ids"]:  # type: ignore[attr-defined]
        assert tokenizer.encode(text, add_special=False) == ids, text


@pytest.mark.parametrize("case", sorted(set(CASES) - set(WITH_MODEL) - {"slow", "added"}))  # converters make spaces of the latter's ▁▁
def test_ids_are_those_of_the_folders_tokenizer_json(case: str, tmp_path: Path) -> None:
    source = folder(case, tmp_path)
    own = tokenizers.Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer = Tokenizer.of_gguf(model_of(tmp_path / "m", keys_of(source)))
    for text in PROBES:
        assert tokenizer.encode(text, add_special=False) == own.encode(text, add_special_tokens=False).ids, text


@pytest.mark.parametrize("case", sorted(CASES))
def test_there_and_back_keeps_keys_and_ids(case: str, tmp_path: Path) -> None:
    source = folder(case, tmp_path)
    config = json.loads((source / "config.json").read_text())
    keys = keys_of(source)
    model = model_of(tmp_path / "m", keys, {"gemma3_text": "gemma3"}.get(config["model_type"], config["model_type"]))
    back = tmp_path / "back"
    back.mkdir()
    for name, content in tokenizer_files(model).items():
        (back / name).write_bytes(content)
    (back / "config.json").write_text(json.dumps(config))
    again = keys_of(back)
    told = {"tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token"} - keys.keys()  # was left open, is now what the model did
    lost = {"tokenizer.ggml.eot_token_id"} - again.keys()  # has no place in those files, and is found by its text when a model runs
    assert {key: value for key, value in again.items() if key not in told} == {key: value for key, value in keys.items() if key not in lost}
    rebuilt = tokenizers.Tokenizer.from_file(str(back / "tokenizer.json"))
    tokenizer = Tokenizer.of_gguf(model)
    for text in PROBES if case != CUT else ():
        assert rebuilt.encode(text).ids == tokenizer.encode(text), text
        ids = tokenizer.encode(text, add_special=False)
        assert rebuilt.decode(ids) == tokenizer.decode(ids), text


def set_vocab(token: str, token_id: object) -> Callable[[dict[str, object]], object]:
    return lambda content: content["model"]["vocab"].update({token: token_id})  # type: ignore[index]


def byte_fallback(path: Path, merges: list[str]) -> Path:
    """A folder with the ``tokenizer.json`` of a SentencePiece-like vocabulary and no ``tokenizer.model``."""
    path.mkdir()
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "▁", "a", "b", "c", "ab", "bc", "▁a"]
    added = [{"id": i, "content": tokens[i], "special": True, "normalized": False} for i in range(3)]
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    model = {
        "type": "BPE",
        "unk_token": "<unk>",
        "byte_fallback": True,
        "vocab": {token: i for i, token in enumerate(tokens)},
        "merges": merges,
    }
    content = {
        "version": "1.0",
        "added_tokens": [{"single_word": False, "lstrip": False, "rstrip": False, **token} for token in added],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, spaces]},
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": model,
    }
    (path / "tokenizer.json").write_text(json.dumps(content))
    (path / "config.json").write_text(json.dumps({"model_type": "mistral", "vocab_size": len(tokens) + 1, "bos_token_id": 1}))
    return path


def test_merges_order_what_equal_scores_leave_open(tmp_path: Path) -> None:
    source = byte_fallback(tmp_path / "hf", ["b c", "a b", "▁ a"])
    keys = keys_of(source, None)
    assert set(keys["tokenizer.ggml.scores"][0]) == {-1000.0, -10000.0}  # type: ignore[call-overload]
    tokenizer = Tokenizer.of_gguf(model_of(tmp_path / "m", keys))
    own = tokenizers.Tokenizer.from_file(str(source / "tokenizer.json"))
    assert tokenizer.encode("abc", add_special=False) == own.encode("abc").ids
    assert [tokenizer.vocabulary.tokens[i] for i in own.encode("abc").ids] == ["▁a", "bc"]


def test_byte_fallback_vocabulary_is_padded_to_the_embedding(tmp_path: Path) -> None:
    keys = keys_of(byte_fallback(tmp_path / "hf", []), None)
    tokens, types = keys["tokenizer.ggml.tokens"][0], keys["tokenizer.ggml.token_type"][0]
    assert tokens[-1] == "[PAD266]"  # type: ignore[index]
    assert [types[i] for i in (0, 3, 259, 266)] == [CONTROL, BYTE, NORMAL, 5]  # type: ignore[index]


def test_no_space_goes_first_where_the_folder_puts_none(tmp_path: Path) -> None:
    source = byte_fallback(tmp_path / "hf", [])
    assert "tokenizer.ggml.add_space_prefix" not in keys_of(source, None)
    edit(source / "tokenizer.json", lambda content: content["normalizer"]["normalizers"].pop(0))  # type: ignore[index]
    assert keys_of(source, None)["tokenizer.ggml.add_space_prefix"] == (False, "bool")


@pytest.mark.parametrize(("case", "adds"), [("begins", True), ("byte-level", False)])
def test_a_folders_own_tokenizer_gets_the_begin_token_that_its_files_ask_for(case: str, adds: bool, tmp_path: Path) -> None:
    source = folder(case, tmp_path)
    tokenizer = Tokenizer.of_gguf(model_of(source, keys_of(source)))
    assert tokenizer._override is not None
    own = tokenizers.Tokenizer.from_file(str(source / "tokenizer.json"))
    assert tokenizer.encode("the License") == own.encode("the License").ids
    assert (tokenizer.encode("the License")[0] == tokenizer.bos_id) is adds


def test_a_folders_own_tokenizer_is_used_where_the_converter_wrote_spaces(tmp_path: Path) -> None:
    source = byte_fallback(tmp_path / "hf", ["▁ ▁"])
    edit(source / "tokenizer.json", set_vocab("▁▁", 266))
    spaces = {"id": 266, "content": "▁▁", "special": False, "normalized": True, "single_word": False, "lstrip": False, "rstrip": False}
    edit(source / "tokenizer.json", lambda content: content["added_tokens"].append(spaces))  # type: ignore[attr-defined]
    tokenizer = Tokenizer.of_gguf(model_of(source, keys_of(source, None)))
    assert tokenizer.vocabulary.tokens[266] == "  "
    assert tokenizer._override is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["model"]["vocab"].update({"x": 4_000_000_000}), "found id 4000000000, expected less than 4000000"),
        (lambda content: content["added_tokens"].append({"id": 9, "content": "x"}), "expected a tokenizer.json"),
    ],
)
def test_a_hostile_tokenizer_json_beside_a_model_is_refused(
    change: Callable[[dict[str, object]], object], message: str, tmp_path: Path
) -> None:
    source = folder("begins", tmp_path)
    edit(source / "tokenizer.json", change)
    with pytest.raises(quantrs.FormatError, match=message):
        Tokenizer.of_gguf(model_of(source, {}))


def test_an_added_token_with_a_wrong_id_beside_a_model_is_read_by_its_text(tmp_path: Path) -> None:
    source = folder("begins", tmp_path)
    edit(source / "tokenizer.json", lambda content: content["added_tokens"][0].update(id=10**9))  # type: ignore[index]
    tokenizer = Tokenizer.of_gguf(model_of(source, {}))
    assert tokenizer.vocabulary.types[0] == CONTROL


def test_word_piece_ids_survive_the_way_back(tmp_path: Path) -> None:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "▁he", "llo", "▁wor", "ld", "▁,", "▁世", "▁e", "e"]
    metadata = {"model": "bert", "tokens": tokens, "token_type": [CONTROL] * 4 + [NORMAL] * 8}
    ids = {"bos_token_id": 2, "seperator_token_id": 3, "unknown_token_id": 1, "padding_token_id": 0}
    (tmp_path / "m.gguf").write_bytes(gguf_bytes({}, {f"tokenizer.ggml.{key}": value for key, value in {**metadata, **ids}.items()}))
    model = _native.Gguf.open(tmp_path / "m.gguf")
    files = tokenizer_files(model)
    rebuilt = tokenizers.Tokenizer.from_str(files["tokenizer.json"].decode())
    tokenizer = Tokenizer.of_gguf(model)
    for text in ("Hello, wórld", "世 hello世e", "xyz", "", "[SEP] he"):
        assert rebuilt.encode(text).ids == tokenizer.encode(text), text
    (tmp_path / "hf").mkdir()
    for name, content in files.items():
        (tmp_path / "hf" / name).write_bytes(content)
    (tmp_path / "hf" / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": 12, "type_vocab_size": 2}))
    keys = keys_of(tmp_path / "hf", None)
    assert keys["tokenizer.ggml.tokens"][0] == tokens
    assert keys["tokenizer.ggml.token_type_count"] == (2, "u32")


def test_files_of_a_model_without_tokens_are_none(tmp_path: Path) -> None:
    assert tokenizer_files(model_of(tmp_path / "m", {})) == {}


def test_phi_4_keeps_the_class_name_that_converters_look_for(tmp_path: Path) -> None:
    files = tokenizer_files(model_of(tmp_path / "m", keys_of(folder("begins", tmp_path)), "phi3"))
    assert json.loads(files["tokenizer_config.json"])["tokenizer_class"] == "GPT2Tokenizer"


def test_equal_tokens_and_fillings_are_left_out_of_the_json(tmp_path: Path) -> None:
    metadata = {"model": "gpt2", "pre": "gpt-2", "tokens": ["a", "x", "x", "[PAD3]"], "token_type": [1, 1, 1, 5], "merges": ["a zz"]}
    (tmp_path / "m.gguf").write_bytes(gguf_bytes({}, {f"tokenizer.ggml.{key}": value for key, value in metadata.items()}))
    content = json.loads(tokenizer_files(_native.Gguf.open(tmp_path / "m.gguf"))["tokenizer.json"])
    assert content["model"]["vocab"] == {"a": 0, "x": 2}
    assert content["model"]["merges"] == []


def test_sentencepiece_messages_come_back_as_they_were() -> None:
    pieces = (Piece("<unk>", 0.0, UNKNOWN), Piece("▁é", -1.5, NORMAL), Piece("<0x0A>", 0.0, BYTE))
    model = SentencePieceModel(pieces, adds_space=False)
    assert SentencePieceModel.parse(model.to_bytes(bos_id=1)) == model


def test_every_cut_and_many_changes_of_a_sentencepiece_model_are_refused_or_read() -> None:
    data = base64.b64decode(CASES["llama"]["files"]["tokenizer.model"])[:600]  # type: ignore[index]
    for damaged in [data[:i] for i in range(len(data))] + [data[:i] + bytes([data[i] ^ 0xFF]) + data[i + 1 :] for i in range(len(data))]:
        try:
            SentencePieceModel.parse(damaged)
        except quantrs.FormatError:
            continue


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "found no pieces"),
        (b"\x0a\xff\xff\xff\xff\x0f", "field 1 at offset 6 has 4294967295 bytes, expected at most the 0 that are left"),
        (b"\xff" * 11, "found a number of more than 10 bytes"),
        (b"\x0a\x07\x0a\x01a\x15\x00\x00\xc0", "ends at offset"),
        (b"\x0a\x08\x0a\x01a\x15\x00\x00\xc0\x7f", "score is nan, expected a finite number"),
        (b"\x0a\x05\x0a\x01a\x18\x09", "type is 9"),
        (b"\x0a\x03\x0a\x01\xff", "expected UTF-8"),
        (b"\x0a\x00", "piece 0: found no text"),
        (b"\x0b", "wire type 3"),
    ],
)
def test_damaged_sentencepiece_models_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(quantrs.FormatError, match=message):
        SentencePieceModel.parse(data)


DAMAGE: dict[str, tuple[Callable[[dict[str, object]], object], str]] = {
    "negative id": (set_vocab("the", -1), r"model\.vocab\['the'\]: found id -1"),
    "fractional id": (set_vocab("the", 1.5), "found a number, expected a whole number"),
    "bool id": (set_vocab("the", True), "found a bool, expected a whole number"),
    "text id": (set_vocab("the", "3"), "found a string, expected a whole number"),
    "id out of range": (set_vocab("new", 10**9), "'new' has id 1000000000, expected less than 310, the rows of the model's embedding"),
    "id twice": (set_vocab("new", 7), "id 7 belongs to"),
    "lone surrogate": (set_vocab("\ud800", 300), "half of a surrogate pair"),
    "no vocabulary": (lambda content: content["model"].pop("vocab"), r"model\.vocab: found nothing, expected an object"),  # type: ignore[attr-defined]
    "vocabulary as a list": (lambda content: content["model"].update(vocab=["a"]), "found a list, expected an object"),  # type: ignore[attr-defined]
    "three parts": (lambda content: content["model"].update(merges=[["a", "b", "c"]]), r"merges\[0\].*expected two tokens"),  # type: ignore[attr-defined]
    "merge of a number": (lambda content: content["model"].update(merges=[5]), r"merges\[0\].*expected two tokens"),  # type: ignore[attr-defined]
    "added token without id": (lambda content: content["added_tokens"].append({"content": "x"}), r"added_tokens\[2\]\.id: found nothing"),  # type: ignore[attr-defined]
    "added token of another id": (
        lambda content: content["added_tokens"].append({"id": 305, "content": "<|bos|>"}),  # type: ignore[attr-defined]
        "has the ids 0 and 305",
    ),
    "added token on an id that is taken": (
        lambda content: content["added_tokens"].append({"id": 40, "content": "<x>"}),  # type: ignore[attr-defined]
        "id 40 belongs to .* and to the added token '<x>'",
    ),
    "unigram": (lambda content: content["model"].update(type="Unigram"), "model.type is 'Unigram', expected BPE or WordPiece"),  # type: ignore[attr-defined]
    "neither bytes": (
        lambda content: content.update(decoder=None, pre_tokenizer={"type": "Whitespace"}),
        "found BPE without ByteLevel and without byte_fallback",
    ),
    "model as text": (lambda content: content.update(model="BPE"), "model: found a string, expected an object"),
}


@pytest.mark.parametrize("what", sorted(DAMAGE))
def test_damaged_tokenizer_json_is_refused(what: str, tmp_path: Path) -> None:
    source = folder("begins", tmp_path)
    change, message = DAMAGE[what]
    edit(source / "tokenizer.json", change)
    with pytest.raises((quantrs.InputError, quantrs.FormatError), match=message):
        keys_of(source)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", b"[" * 200_000, "nested too deeply"),
        ("tokenizer.json", b'{"a": 1, "a": 2}', "the key 'a' occurs twice"),
        ("tokenizer.json", b'{"a": NaN}', "NaN is no JSON value"),
        ("tokenizer.json", b'{"a": ' + b"9" * 10_000 + b"}", "expected JSON"),
        ("tokenizer.json", b"[]", "found a list, expected an object"),
        ("tokenizer.json", b'"\xff"', "expected UTF-8"),
        ("tokenizer_config.json", b'{"added_tokens_decoder": {"x": {}}}', "found the key 'x', expected an id"),
        ("tokenizer_config.json", b'{"added_tokens_decoder": {"299": 5}}', "found a whole number, expected an object"),
        ("tokenizer_config.json", b'{"chat_template": [{"name": 1}]}', r"chat_template\[0\]\.name: found a whole number"),
        ("tokenizer_config.json", b'{"chat_template": "\\ud800"}', "half of a surrogate pair"),
    ],
)
def test_damaged_files_are_refused_by_name(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    source = folder("begins", tmp_path)
    (source / name).write_bytes(content)
    with pytest.raises(quantrs.FormatError, match=f"{name}.*{message}"):
        keys_of(source)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(quantrs.InputError, match=r"found no tokenizer, expected tokenizer\.json, tokenizer\.model or vocab\.json"):
        tokenizer_keys(tmp_path, {}, pre=None, n_vocab=5)


@pytest.mark.parametrize("n_vocab", [0, -1, 10**12])
def test_absurd_vocabulary_sizes_are_refused_before_anything_is_allocated(n_vocab: int, tmp_path: Path) -> None:
    with pytest.raises(quantrs.InputError, match=f"found a vocabulary of {n_vocab} tokens"):
        tokenizer_keys(tmp_path, {}, pre=None, n_vocab=n_vocab)


def test_scores_that_are_no_numbers_are_refused_on_the_way_back(tmp_path: Path) -> None:
    keys: Keys = {
        "tokenizer.ggml.model": ("llama", "string"),
        "tokenizer.ggml.tokens": (["<unk>", "a"], "array[string]"),
        "tokenizer.ggml.scores": ([0.0, float("nan")], "array[f32]"),
    }
    with pytest.raises(quantrs.FormatError, match=r"scores\[1\]: found nan, expected a finite number"):
        tokenizer_files(model_of(tmp_path / "m", keys))


def test_tokens_that_are_no_text_are_refused_on_the_way_back(tmp_path: Path) -> None:
    metadata = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.tokens": [b"a", b"\xff"]}
    (tmp_path / "m.gguf").write_bytes(gguf_bytes({}, metadata))
    with pytest.raises(quantrs.FormatError, match=r"tokens\[1\].*not UTF-8"):
        tokenizer_files(_native.Gguf.open(tmp_path / "m.gguf"))


def test_a_piece_of_absurd_length_is_refused_on_the_way_back(tmp_path: Path) -> None:
    keys: Keys = {
        "tokenizer.ggml.model": ("llama", "string"),
        "tokenizer.ggml.tokens": (["<unk>", "a" * 5000], "array[string]"),
        "tokenizer.ggml.token_type": ([UNKNOWN, NORMAL], "array[i32]"),
    }
    with pytest.raises(quantrs.FormatError, match=r"tokens\[1\]: found 5000 characters, expected at most 256"):
        tokenizer_files(model_of(tmp_path / "m", keys))
