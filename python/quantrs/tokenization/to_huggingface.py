"""The tokenizer of a GGUF file as the files of a Hugging Face folder.

``tokenizer.json`` is rebuilt from the metadata and gives the ids that `Tokenizer.of_gguf` gives. What a GGUF file does not hold is not
invented: there is no normalisation (Qwen's NFC) in it, and SentencePiece merges follow the scores, pieces of equal score their ids.
"""

import json
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from quantrs.errors import FormatError
from quantrs.tokenization.encoders import SPACE
from quantrs.tokenization.pre_tokenizers import pre_tokenizer
from quantrs.tokenization.sentencepiece_model import Piece, SentencePieceModel
from quantrs.tokenization.to_gguf import decoded_added_token
from quantrs.tokenization.tokenizer import Tokenizer
from quantrs.tokenization.vocabulary import CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, Vocabulary

if TYPE_CHECKING:
    from quantrs._native import Gguf

__all__ = ["tokenizer_files"]

_MAX_PIECE = 256
"""Characters of a piece that merges are looked for in; SentencePiece itself makes none of more than 16."""
_ADDED_SCORE = -1000.0
_SPECIAL = {"bos": "bos", "eos": "eos", "unk": "unknown", "sep": "seperator", "pad": "padding", "mask": "mask"}
"""Names in ``tokenizer_config.json``, and in the metadata."""


def tokenizer_files(gguf: "Gguf") -> dict[str, bytes]:
    """Contents by file name: ``tokenizer.json``, ``tokenizer_config.json``, ``special_tokens_map.json``; empty without tokens.

    SentencePiece vocabularies with scores get a ``tokenizer.model`` too, so that the scores come back.

    Raises
    ------
    FormatError
        The metadata is damaged, describes a kind of tokenizer that is not known here, or holds tokens that no JSON text can.
    """
    vocabulary = Vocabulary.of_gguf(gguf)
    if vocabulary is None:
        return {}
    _check_scores(vocabulary)
    return _Rebuilt(gguf, Tokenizer(vocabulary)).files()


class _Rebuilt:
    def __init__(self, gguf: "Gguf", tokenizer: Tokenizer) -> None:
        self._gguf = gguf
        self._tokenizer = tokenizer
        self._vocabulary = tokenizer.vocabulary
        self._types = _types(gguf, self._vocabulary)
        self._kept = _kept_ids(self._vocabulary, self._types)
        self._named = {name: self._named_token(key) for name, key in _SPECIAL.items()}

    def files(self) -> dict[str, bytes]:
        special = {f"{name}_token": token for name, token in self._named.items() if token is not None}
        files: dict[str, object] = {
            "tokenizer.json": self._tokenizer_json(),
            "tokenizer_config.json": self._config(special),
            "special_tokens_map.json": special,
        }
        out = {name: (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode() for name, content in files.items()}
        if self._vocabulary.model == "llama" and self._vocabulary.scores_tell:
            out["tokenizer.model"] = self._sentencepiece()
        return out

    def _tokenizer_json(self) -> dict[str, object]:
        build = {"gpt2": self._byte_level, "llama": self._byte_fallback, "bert": self._wordpiece}[self._vocabulary.model]
        parts = build()
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": i, **self._added(i)} for i in self._added_ids()],
            "normalizer": parts["normalizer"],
            "pre_tokenizer": parts["pre_tokenizer"],
            "post_processor": self._post_processor(),
            "decoder": parts["decoder"],
            "model": parts["model"],
        }

    def _byte_level(self) -> dict[str, object]:
        vocabulary = self._vocabulary
        pre = pre_tokenizer(vocabulary.pre)
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        splits = [{"type": "Split", "pattern": {"Regex": text}, "behavior": "Isolated", "invert": False} for text in pre.patterns]
        return {
            "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, byte_level]},
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": _bpe(self._vocab(), _known_merges(vocabulary), ignore_merges=pre.whole_words, byte_fallback=False, unknown=None),
        }

    def _byte_fallback(self) -> dict[str, object]:
        vocabulary = self._vocabulary
        adds_space = vocabulary.add_space_prefix is not False
        replaced: list[object] = [{"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]
        decoders: list[object] = [
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
        ]
        merges = _known_merges(vocabulary) if vocabulary.merges and not vocabulary.scores_tell else _merges_by_score(vocabulary)
        unknown = None if vocabulary.unknown_id is None else vocabulary.tokens[vocabulary.unknown_id]
        return {
            "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}] * adds_space + replaced},
            "pre_tokenizer": None,
            "decoder": {"type": "Sequence", "decoders": decoders + [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] * adds_space},
            "model": _bpe(self._vocab(), merges, ignore_merges=False, byte_fallback=True, unknown=unknown),
        }

    def _wordpiece(self) -> dict[str, object]:
        vocabulary = self._vocabulary
        unknown = "[UNK]" if vocabulary.unknown_id is None else vocabulary.tokens[vocabulary.unknown_id]
        model = {
            "type": "WordPiece",
            "unk_token": unknown,
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 1_000_000,
            "vocab": {self._word(i): i for i in self._kept},
        }
        normalizer = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": True, "lowercase": True}
        return {
            "normalizer": normalizer,
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
            "model": model,
        }

    def _word(self, token_id: int) -> str:
        token = self._vocabulary.tokens[token_id]
        if self._types[token_id] != NORMAL:
            return token
        return token[1:] if token.startswith(SPACE) else f"##{token}"

    def _vocab(self) -> dict[str, int]:
        return {self._vocabulary.tokens[i]: i for i in self._kept}

    def _added_ids(self) -> list[int]:
        named = set(self._named.values())
        tokens, types = self._vocabulary.tokens, self._types
        return [i for i in self._kept if types[i] in (CONTROL, USER_DEFINED, UNKNOWN) or tokens[i] in named]

    def _added(self, token_id: int) -> dict[str, object]:
        token = self._vocabulary.tokens[token_id]
        return {
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": self._tokenizer.strips_after(token),
            "normalized": decoded_added_token(token) != token,  # converters decode the others, which this one cannot stand
            "special": self._types[token_id] != USER_DEFINED,
        }

    def _post_processor(self) -> dict[str, object] | None:
        tokenizer, vocabulary = self._tokenizer, self._vocabulary
        first = vocabulary.bos_id if tokenizer.add_bos else None
        last = (vocabulary.separator_id if vocabulary.model == "bert" else vocabulary.eos_id) if tokenizer.add_eos else None
        if first is None and last is None:
            said = vocabulary.add_bos is not None and vocabulary.model == "gpt2"
            return {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True} if said else None
        text_a, text_b = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
        before, after = (self._template_token(i) for i in (first, last))
        middle = after if vocabulary.model == "bert" else []
        ids = sorted({i for i in (first, last) if i is not None})
        return {
            "type": "TemplateProcessing",
            "single": [*before, text_a, *after],
            "pair": [*before, text_a, *middle, text_b, *after],
            "special_tokens": {
                vocabulary.tokens[i]: {"id": vocabulary.tokens[i], "ids": [i], "tokens": [vocabulary.tokens[i]]} for i in ids
            },
        }

    def _template_token(self, token_id: int | None) -> list[object]:
        return [] if token_id is None else [{"SpecialToken": {"id": self._vocabulary.tokens[token_id], "type_id": 0}}]

    def _named_token(self, key: str) -> str | None:
        """Text of a token that the metadata names. An ordinary token's id is left to ``config.json``: naming it would make it special."""
        value = self._gguf.get(f"tokenizer.ggml.{key}_token_id")
        if not isinstance(value, int) or not 0 <= value < len(self._types):  # an id outside of the vocabulary stands for none
            return None
        types_tell = CONTROL in self._types
        return None if types_tell and self._types[value] == NORMAL else self._vocabulary.tokens[value]

    def _config(self, special: dict[str, str]) -> dict[str, object]:
        vocabulary = self._vocabulary
        told_elsewhere = vocabulary.model == "llama" and vocabulary.scores_tell  # tokenizer.model has the types of its own pieces
        decoder = {str(i): self._added(i) for i in self._added_ids() if not told_elsewhere or vocabulary.scores[i] == _ADDED_SCORE}
        config: dict[str, object] = {"added_tokens_decoder": decoder, "clean_up_tokenization_spaces": False}
        for name in ("bos", "eos", "sep"):
            flag = self._gguf.get(f"tokenizer.ggml.add_{name}_token")
            if isinstance(flag, bool):
                config[f"add_{name}_token"] = flag
        if vocabulary.add_space_prefix is not None:
            config["add_prefix_space"] = vocabulary.add_space_prefix
        architecture = self._gguf.get("general.architecture")
        context = self._gguf.get(f"{architecture}.context_length")
        if isinstance(context, int):
            config["model_max_length"] = context
        config |= special
        if (template := self._chat_template()) is not None:
            config["chat_template"] = template
        # Phi-4's own class: converters tell it from SentencePiece models of the same architecture by that name.
        byte_level_phi = architecture == "phi3" and vocabulary.model == "gpt2"
        config["tokenizer_class"] = "GPT2Tokenizer" if byte_level_phi else "PreTrainedTokenizerFast"
        return config

    def _chat_template(self) -> str | list[dict[str, str]] | None:
        default = self._gguf.get("tokenizer.chat_template")
        named = []
        listed = self._gguf.get("tokenizer.chat_templates")
        for name in listed if isinstance(listed, list) else []:
            text = self._gguf.get(f"tokenizer.chat_template.{name}")
            if isinstance(name, str) and isinstance(text, str):
                named.append({"name": name, "template": _text(text, f"tokenizer.chat_template.{name}")})
        if default is not None and not isinstance(default, str):
            raise FormatError(f"tokenizer.chat_template: found {self._gguf.value_type('tokenizer.chat_template')}, expected a string")
        if default is not None:
            default = _text(default, "tokenizer.chat_template")
        if not named:
            return default
        return [{"name": "default", "template": default}, *named] if default is not None else named

    def _sentencepiece(self) -> bytes:
        vocabulary = self._vocabulary
        unknown = vocabulary.unknown_id
        ids = {name: vocabulary.ids.get(token or "", -1) for name, token in self._named.items()}
        pieces = []
        for i, (token, score, kind) in enumerate(zip(vocabulary.tokens, vocabulary.scores, self._types, strict=False)):
            if i == unknown or kind == UNKNOWN:
                kind = UNKNOWN if i == unknown else CONTROL  # the library asks for exactly one
            pieces.append(Piece(token.replace(" ", SPACE) if kind == USER_DEFINED else token, score, kind))
        model = SentencePieceModel(tuple(pieces), vocabulary.add_space_prefix is not False)
        return model.to_bytes(unknown_id=-1 if unknown is None else unknown, bos_id=ids["bos"], eos_id=ids["eos"], pad_id=ids["pad"])


def _types(gguf: "Gguf", vocabulary: Vocabulary) -> list[int]:
    """Types as the file has them: `Vocabulary` corrects some, as llama.cpp does, which the model's own tokenizer did not."""
    value = gguf.get("tokenizer.ggml.token_type")
    return [kind for kind in value if isinstance(kind, int)] if isinstance(value, list) else [NORMAL] * len(vocabulary.tokens)


def _kept_ids(vocabulary: Vocabulary, types: list[int]) -> list[int]:
    """Ids that a vocabulary in JSON can hold: of equal tokens one, and no filling, which a converter puts back."""
    kept = []
    for i, (token, kind) in enumerate(zip(vocabulary.tokens, types, strict=False)):
        if vocabulary.ids[token] != i or (kind == UNUSED and token == f"[PAD{i}]"):
            continue
        _text(token, f"tokenizer.ggml.tokens[{i}]")
        kept.append(i)
    return kept


def _text(text: str, where: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise FormatError(f"{where}: found {text!r}, which is not UTF-8 and cannot be written to JSON; expected Unicode text") from None
    return text


def _bpe(
    vocab: dict[str, int], merges: Iterable[tuple[str, str]], *, ignore_merges: bool, byte_fallback: bool, unknown: str | None
) -> dict[str, object]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": byte_fallback,
        "ignore_merges": ignore_merges,
        "vocab": vocab,
        "merges": [list(pair) for pair in merges],
    }


def _known_merges(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """The merges that the library takes: both parts and their product are tokens."""
    ids = vocabulary.ids
    found: dict[tuple[str, str], None] = {}
    for merge in vocabulary.merges:
        left, _, right = merge.partition(" ")
        if left in ids and right in ids and left + right in ids:
            found.setdefault((left, right))
    return list(found)


def _check_scores(vocabulary: Vocabulary) -> None:
    bad = next((i for i, score in enumerate(vocabulary.scores) if not math.isfinite(score)), None)
    if bad is not None:
        raise FormatError(f"tokenizer.ggml.scores[{bad}]: found {vocabulary.scores[bad]}, expected a finite number")


def _merges_by_score(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Every pair of tokens whose concatenation is a token: best score first, then the lower ids."""
    ids, scores = vocabulary.ids, vocabulary.scores
    found = []
    for token, token_id in ids.items():
        if vocabulary.types[token_id] not in (NORMAL, UNUSED):
            continue
        if len(token) > _MAX_PIECE:
            raise FormatError(f"tokenizer.ggml.tokens[{token_id}]: found {len(token)} characters, expected at most {_MAX_PIECE} in a piece")
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in ids and right in ids:
                found.append((-scores[token_id] if scores else 0.0, token_id, ids[left], ids[right], left, right))
    return [(left, right) for *_, left, right in sorted(found)]
