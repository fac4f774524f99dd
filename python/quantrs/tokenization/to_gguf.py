"""The tokenizer of a Hugging Face folder as keys of a GGUF file, the ones that llama.cpp's converter writes.

Sources, in order: ``tokenizer.model`` (SentencePiece), ``tokenizer.json``, ``vocab.json`` with ``merges.txt``.
Source: https://github.com/ggml-org/llama.cpp/blob/0c1e57098/conversion/base.py, ``_set_vocab_*`` and ``get_vocab_base``.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from quantrs.errors import FormatError, InputError
from quantrs.tokenization.bounded_json import as_list, as_text, read_text
from quantrs.tokenization.detect_pre import check_name, detect_pre
from quantrs.tokenization.encoders import BYTE_OF_CHARACTER, SPACE
from quantrs.tokenization.sentencepiece_model import looks_like_sentencepiece
from quantrs.tokenization.special_tokens import SpecialTokens
from quantrs.tokenization.tokenizer_folder import AddedToken, TokenizerFolder
from quantrs.tokenization.vocabulary import BYTE, CONTROL, NORMAL, UNUSED, USER_DEFINED

__all__ = ["Key", "decoded_added_token", "tokenizer_keys"]

Key = tuple[str, object, str]
"""Key, value, value type."""

MAX_TOKENS = 4_000_000

_LLAMA_LIKE = frozenset({"llama", "mistral", "mixtral", "granite", "granitemoe", "smollm3"})
"""Model types whose converter reads ``add_prefix_space``, and knows Code Llama and vocabularies of 49152 tokens."""
_GEMMA = frozenset({"gemma", "gemma2", "gemma3", "gemma3_text"})
_CODE_LLAMA_VOCAB, _NO_BOS_VOCAB = 32016, 49152
_CODE_LLAMA_EOT, _CODE_GEMMA_EOT = 32010, 107
_ADDED_SCORE, _UNUSED_SCORE = -1000.0, -10000.0
_LOOKS_SPECIAL = re.compile(r"<\|.*\|>|<｜.*｜>|<unused.*>|<pad>|<mask>|<2mass>|\[@BOS@\]", re.DOTALL)
"""Added tokens that are control tokens although their files say otherwise. The list is llama.cpp's."""


def tokenizer_keys(folder: Path, config: Mapping[str, object], *, pre: str | None, n_vocab: int, name_rules: bool = True) -> list[Key]:
    """All ``tokenizer.*`` keys for a model folder.

    Parameters
    ----------
    folder
        The folder with the tokenizer's files.
    config
        Content of ``config.json``.
    pre
        Name of the pre-tokenizer as for ``--pre``; None to find it by behaviour. Only byte-level vocabularies have one.
    name_rules
        False leaves out the name of a ``tokenizer.json``'s rules: who has the file beside needs none, and not all rules have one.
    n_vocab
        Rows of the embedding: ids without a token become ``[PAD<id>]``.

    Returns
    -------
    list of (key, value, value type)
        In the converter's order; types as in ``GgufHeader.set``.

    Raises
    ------
    FileError, FormatError
        A file cannot be read, or is damaged; the message names file and field.
    InputError
        There is no tokenizer, one of a kind that GGUF has no name for, or more tokens than `n_vocab`.
    UsageError
        `pre` is no known name.
    """
    if pre is not None:
        check_name(pre)
    if not 0 < n_vocab <= MAX_TOKENS:
        raise InputError(f"{folder}: found a vocabulary of {n_vocab} tokens, expected 1 to {MAX_TOKENS}")
    source = TokenizerFolder(folder, config)
    model_type = _model_type(config)
    keys = _vocabulary_keys(source, model_type, pre, n_vocab, name_rules)
    special = SpecialTokens.of_folder(source, n_vocab)
    flags = special.keys()
    if model_type in _LLAMA_LIKE and n_vocab == _NO_BOS_VOCAB:
        flags = _with(flags, ("tokenizer.ggml.add_bos_token", False, "bool"))
    keys += flags
    keys += _template_keys(source.chat_template())
    if (end_of_turn := _end_of_turn(model_type, n_vocab, keys)) is not None and "eot" not in special.ids:
        keys.append(("tokenizer.ggml.eot_token_id", end_of_turn, "u32"))
    if (prefix := _space_prefix(source, model_type, keys)) is not None:
        entry: Key = ("tokenizer.ggml.add_space_prefix", prefix, "bool")
        keys = [entry, *keys] if model_type in _LLAMA_LIKE else [*keys, entry]
    return keys


def _model_type(config: Mapping[str, object]) -> str:
    name = config.get("model_type")
    return name if isinstance(name, str) else ""


def _end_of_turn(model_type: str, n_vocab: int, keys: Sequence[Key]) -> int | None:
    """Ids that the converter knows by heart; no file of those models tells them."""
    if model_type in _LLAMA_LIKE and n_vocab == _CODE_LLAMA_VOCAB:
        return _CODE_LLAMA_EOT
    return _CODE_GEMMA_EOT if model_type == "gemma" and keys[0][1] == "llama" and n_vocab > _CODE_GEMMA_EOT else None


def _vocabulary_keys(source: TokenizerFolder, model_type: str, pre: str | None, n_vocab: int, name_rules: bool) -> list[Key]:
    path = source.path
    if _uses_sentencepiece(source, model_type):
        tokens, scores, types = _sentencepiece(source, n_vocab, like_phi=model_type == "phi3")
        return _llama_keys(tokens, scores, types)
    if source.tokenizer_json is not None:
        model = source.section("model")
        kind = model.get("type", "BPE" if "merges" in model else None)
        if kind == "WordPiece":
            return _wordpiece_keys(source, n_vocab)
        if kind != "BPE":
            raise InputError(
                f"{path / 'tokenizer.json'}: model.type is {kind!r}, expected BPE or WordPiece; a GGUF file holds no other kind,"
                " a tokenizer.model of SentencePiece in the folder would be used instead"
            )
        if not _is_byte_level(source):
            if model.get("byte_fallback") is not True:
                raise InputError(
                    f"{path / 'tokenizer.json'}: found BPE without ByteLevel and without byte_fallback, expected one of them: a GGUF file"
                    " holds no other kind"
                )
            tokens, types = _tokens(source, n_vocab, byte_level=False)
            types = [BYTE if kind == NORMAL and _is_byte(token) else kind for token, kind in zip(tokens, types, strict=True)]
            scores = [_UNUSED_SCORE if kind == UNUSED else _ADDED_SCORE for kind in types]
            return [*_llama_keys(tokens, scores, types), ("tokenizer.ggml.merges", _merges(source), "array[string]")]
    elif not source.has("vocab.json"):
        raise InputError(
            f"{path}: found no tokenizer, expected tokenizer.json, tokenizer.model or vocab.json with merges.txt;"
            " copy them from the model that this one was made from"
        )
    tokens, types = _tokens(source, n_vocab, byte_level=True)
    rules: list[Key] = []
    if name_rules or pre is not None or source.tokenizer_json is None:
        section = source.section("pre_tokenizer") if source.tokenizer_json is not None else None
        name = pre or detect_pre(
            section,
            ignore_merges=source.tokenizer_json is not None and source.section("model").get("ignore_merges") is True,
            model_type=model_type,
            tokenizer_class=source.tokenizer_class,
        )
        rules = [("tokenizer.ggml.pre", name, "string")]
    return [
        ("tokenizer.ggml.model", "gpt2", "string"),
        *rules,
        ("tokenizer.ggml.tokens", tokens, "array[string]"),
        ("tokenizer.ggml.token_type", types, "array[i32]"),
        ("tokenizer.ggml.merges", _merges(source), "array[string]"),
    ]


def _uses_sentencepiece(source: TokenizerFolder, model_type: str) -> bool:
    """There is a ``tokenizer.model``, and it is SentencePiece's. Phi-4 may bring one along that it does not use."""
    if model_type == "phi3" and source.tokenizer_class == "GPT2Tokenizer":
        return False
    return source.has("tokenizer.model") and looks_like_sentencepiece(source.path / "tokenizer.model")


def _llama_keys(tokens: list[str], scores: list[float], types: list[int]) -> list[Key]:
    return [
        ("tokenizer.ggml.model", "llama", "string"),
        ("tokenizer.ggml.pre", "default", "string"),
        ("tokenizer.ggml.tokens", tokens, "array[string]"),
        ("tokenizer.ggml.scores", scores, "array[f32]"),
        ("tokenizer.ggml.token_type", types, "array[i32]"),
    ]


def _wordpiece_keys(source: TokenizerFolder, n_vocab: int) -> list[Key]:
    tokens, types = _tokens(source, n_vocab, byte_level=False)
    for i, (token, kind) in enumerate(zip(tokens, types, strict=True)):
        if kind not in (CONTROL, UNUSED):
            tokens[i] = token[2:] if token.startswith("##") else SPACE + token  # the space tells where a word begins
    return [
        ("tokenizer.ggml.token_type_count", _count(source.model_config.get("type_vocab_size"), 1), "u32"),
        ("tokenizer.ggml.model", "bert", "string"),
        ("tokenizer.ggml.pre", "default", "string"),
        ("tokenizer.ggml.tokens", tokens, "array[string]"),
        ("tokenizer.ggml.token_type", types, "array[i32]"),
    ]


def _count(value: object, default: int) -> int:
    return value if isinstance(value, int) and 0 < value < 1 << 32 else default


def _tokens(source: TokenizerFolder, n_vocab: int, *, byte_level: bool) -> tuple[list[str], list[int]]:
    """Tokens and types by id, from ``tokenizer.json`` or ``vocab.json``."""
    tokens: list[str | None] = [None] * n_vocab
    types = [UNUSED] * n_vocab
    for token, token_id in source.vocabulary.items():
        tokens[_checked(token_id, token, n_vocab, source)] = token
        types[token_id] = NORMAL
    for added in _added_tokens(source).values():
        token_id, text = _checked(added.token_id, added.text, n_vocab, source), added.text
        if tokens[token_id] not in (None, text):
            raise FormatError(
                f"{source.path}: id {token_id} belongs to {tokens[token_id]!r} and to the added token {text!r}; expected one token"
            )
        if byte_level and not added.normalized:
            text = decoded_added_token(text)
        if added.special or _LOOKS_SPECIAL.fullmatch(text):
            types[token_id] = CONTROL
        else:
            types[token_id] = USER_DEFINED
            text = text.replace(SPACE, " ")  # such tokens are looked for in the text as it is
        tokens[token_id] = text
    return [f"[PAD{i}]" if token is None else token for i, token in enumerate(tokens)], types


def _added_tokens(source: TokenizerFolder) -> dict[str, AddedToken]:
    """By text; what ``tokenizer_config.json`` says of a token goes before what ``tokenizer.json`` says."""
    vocabulary = source.vocabulary
    found: dict[str, AddedToken] = {}
    for added in (*source.json_added_tokens, *source.config_added_tokens):
        known = vocabulary.get(added.text, found[added.text].token_id if added.text in found else added.token_id)
        if known != added.token_id:
            raise FormatError(f"{source.path}: the added token {added.text!r} has the ids {known} and {added.token_id}, expected one id")
        found[added.text] = AddedToken(added.token_id, added.text, added.special or added.text in source.named_special, added.normalized)
    for text in source.named_special - found.keys():
        if text in vocabulary:
            found[text] = AddedToken(vocabulary[text], text, special=True, normalized=False)
    return found


def decoded_added_token(text: str) -> str:
    """What a byte-level decoder makes of an added token: characters that stand for bytes become them, if all do."""
    if not all(char in BYTE_OF_CHARACTER for char in text):
        return text
    return bytes(BYTE_OF_CHARACTER[char] for char in text).decode("utf-8", "replace")


def _checked(token_id: int, token: str, n_vocab: int, source: TokenizerFolder) -> int:
    if token_id >= n_vocab:
        raise InputError(
            f"{source.path}: the tokenizer's {token!r} has id {token_id}, expected less than {n_vocab}, the rows of the model's embedding;"
            " is it the tokenizer of another model?"
        )
    return token_id


def _is_byte_level(source: TokenizerFolder) -> bool:
    return any("ByteLevel" in _type_names(source.section(name)) for name in ("decoder", "pre_tokenizer"))


def _type_names(section: object) -> set[str]:
    """``type`` of a section and of the steps that it holds."""
    if not isinstance(section, dict):
        return set()
    steps = [step for name in ("decoders", "pretokenizers", "normalizers") for step in _listed(section.get(name))]
    own = section.get("type")
    return {own} | set().union(*map(_type_names, steps)) if isinstance(own, str) else set()


def _listed(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else []


def _is_byte(token: str) -> bool:
    return re.fullmatch("<0x[0-9A-Fa-f]{2}>", token) is not None


def _merges(source: TokenizerFolder) -> list[str]:
    """``left right``, best first; a space within a part is written as byte-level vocabularies write it."""
    if source.tokenizer_json is None:
        return _merges_txt(source.path / "merges.txt")
    where = f"{source.path / 'tokenizer.json'}: model.merges"
    out = []
    for i, merge in enumerate(as_list(source.section("model").get("merges", []), where)):
        if isinstance(merge, list) and len(merge) == 2:
            out.append(" ".join(as_text(part, f"{where}[{i}]").replace(" ", "Ġ") for part in merge))
        elif isinstance(merge, str) and merge.count(" ") == 1:
            out.append(as_text(merge, f"{where}[{i}]"))
        else:
            raise FormatError(f"{where}[{i}]: found {str(merge)[:80]!r}, expected two tokens")
    return out


def _merges_txt(path: Path) -> list[str]:
    lines = read_text(path).split("\n")
    first = 1 if lines[0].startswith("#") else 0
    out = []
    for number, line in enumerate(lines[first:], first + 1):
        parts = line.split()
        if parts and len(parts) != 2:
            raise FormatError(f"{path}: line {number} has {len(parts)} words, expected the two tokens of a merge")
        out += [" ".join(parts)] if parts else []
    return out


def _sentencepiece(source: TokenizerFolder, n_vocab: int, *, like_phi: bool) -> tuple[list[str], list[float], list[int]]:
    """Tokens, scores, types by id. Added tokens replace pieces; tokens that the embedding has no row for are left out."""
    tokens = [f"[PAD{i}]" for i in range(n_vocab)]
    scores, types = [_UNUSED_SCORE] * n_vocab, [UNUSED] * n_vocab
    for i, piece in enumerate(source.sentencepiece.pieces[:n_vocab]):
        kind = NORMAL if piece.kind == USER_DEFINED else piece.kind
        tokens[i], scores[i], types[i] = piece.text, piece.score, kind
    added = [(token, False) for token in source.old_added_tokens] + [(token, True) for token in source.config_added_tokens]
    if like_phi and source.tokenizer_json is not None:
        added += [(token, True) for token in source.json_added_tokens]
    for token, has_flags in added:
        if token.token_id >= n_vocab:
            continue
        text = token.text
        if has_flags and (token.special or (not like_phi and _LOOKS_SPECIAL.fullmatch(text))):
            types[token.token_id] = CONTROL
        else:
            types[token.token_id] = USER_DEFINED
            text = text.replace(SPACE, " ") if has_flags and not like_phi else text
        tokens[token.token_id], scores[token.token_id] = text, _ADDED_SCORE
    return tokens, scores, types


def _space_prefix(source: TokenizerFolder, model_type: str, keys: Sequence[Key]) -> bool | None:
    """Whether SentencePiece puts a space before a text; None where it needs no key, as it does when none is there."""
    said = (source.tokenizer_config or {}).get("add_prefix_space")
    if model_type in _LLAMA_LIKE and isinstance(said, bool):
        return said
    if keys[0][1] != "llama":
        return None
    if _uses_sentencepiece(source, model_type):
        return False if model_type in _GEMMA or not source.sentencepiece.adds_space else None
    return None if _adds_space(source) else False


def _adds_space(source: TokenizerFolder) -> bool:
    steps = source.section("normalizer"), source.section("pre_tokenizer")
    if any("Prepend" in _type_names(step) for step in steps):
        return True
    spaced = [step for step in _flat(steps) if step.get("type") == "Metaspace"]
    return any(step.get("prepend_scheme", "always") != "never" and step.get("add_prefix_space") is not False for step in spaced)


def _flat(sections: Sequence[object]) -> list[dict[str, object]]:
    out = []
    for section in sections:
        if isinstance(section, dict):
            out.append(section)
            out += [step for name in ("normalizers", "pretokenizers") for step in _flat(_listed(section.get(name)))]
    return out


def _with(keys: list[tuple[str, int | bool, str]], entry: tuple[str, int | bool, str]) -> list[tuple[str, int | bool, str]]:
    """The keys with one set: in its place if it is there, else at the end."""
    if any(key == entry[0] for key, *_ in keys):
        return [entry if row[0] == entry[0] else row for row in keys]
    return [*keys, entry]


def _template_keys(template: str | list[tuple[str, str]] | None) -> list[Key]:
    if template is None:
        return []
    if isinstance(template, str):
        return [("tokenizer.chat_template", template, "string")]
    named = {re.sub("[^A-Za-z0-9]", "_", name): text for name, text in template if name}
    default = named.pop("default", None)
    keys: list[Key] = [(f"tokenizer.chat_template.{name}", text, "string") for name, text in named.items()]
    if named:
        keys.append(("tokenizer.chat_templates", sorted(named), "array[string]"))
    return keys if default is None else [*keys, ("tokenizer.chat_template", default, "string")]
