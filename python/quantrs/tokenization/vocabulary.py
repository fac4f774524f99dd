"""What the metadata of a GGUF file says about its tokens, checked once."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantrs.errors import FormatError

if TYPE_CHECKING:
    from quantrs._native import Gguf

__all__ = ["BYTE", "CONTROL", "NORMAL", "UNKNOWN", "UNUSED", "USER_DEFINED", "Vocabulary"]

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Values of ``tokenizer.ggml.token_type``."""

_ENDS = (
    "<|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <|flush|> <|calls|> <end_of_turn> <|endoftext|> </s> <|eom_id|> <EOT> _<EOT>"
    " [EOT] [EOS] <|end_of_text|> <end_of_utterance> <eos> <turn|> <|tool_response> <｜end▁of▁sentence｜> [e~["
)
"""Texts that end an answer whatever the metadata calls them. The list is llama.cpp's."""

_ALSO_CONTROL = (
    "<|fim_prefix|> <fim-prefix> <fim_prefix> <｜fim▁begin｜> <|fim_suffix|> <fim-suffix> <fim_suffix> <｜fim▁hole｜> <|fim_middle|>"
    " <fim-middle> <fim_middle> <｜fim▁end｜> <|fim_pad|> <fim-pad> <fim_pad> <PAD> [PAD] <|fim_repo|> <fim-repo> <|repo_name|>"
    " <REPO> <reponame> <|file_sep|>"
)
_FILL_IN_ENDS = ("<|fim_pad|> <fim-pad> <fim_pad> <PAD> [PAD]", "<|fim_repo|> <|repo_name|> <fim-repo> <REPO> <reponame>", "<|file_sep|>")
"""Fill-in-the-middle tokens that end a text: padding, repository, file separator."""

_SHOWN = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")
"""Structure of the harmony format, to be shown although it is of control type."""

_DEFAULTS: dict[str, dict[str, int]] = {
    "llama": {"bos": 1, "eos": 2, "unknown": 0},
    "gpt2": {"bos": 11, "eos": 11},
    "bert": {"bos": 101, "unknown": 100, "seperator": 102, "padding": 0},
}
"""Ids that a file may leave out, by tokenizer model; the key really is spelled ``seperator``."""


@dataclass(frozen=True)
class Vocabulary:
    """Tokens of a model and the flags that go with them."""

    model: str
    """``gpt2`` (byte-level BPE), ``llama`` (SentencePiece) or ``bert`` (WordPiece)."""
    pre: str
    """Name of the pre-tokenizer, empty when the file has none."""
    tokens: list[str]
    """By id, as stored; bytes that are not UTF-8 are surrogate escapes."""
    ids: dict[str, int]
    """Id by token; of equal ones the last."""
    types: list[int]
    """By id: `NORMAL`, `CONTROL` ..."""
    scores: list[float]
    """By id, or empty."""
    merges: list[str]
    """``left right``, best first, or empty."""
    bos_id: int | None
    eos_id: int | None
    unknown_id: int | None
    separator_id: int | None
    end_ids: frozenset[int]
    """Tokens that end an answer."""
    add_bos: bool | None
    """As the file says; None when it does not."""
    add_eos: bool | None
    add_space_prefix: bool | None
    strips_after_special: bool
    """White space after a special token is dropped (Phi-3)."""

    @property
    def scores_tell(self) -> bool:
        """The scores order the tokens; converters that know none write the same for every token."""
        return len({score for score, kind in zip(self.scores, self.types, strict=False) if kind == NORMAL}) > 1

    @staticmethod
    def of_gguf(gguf: "Gguf") -> "Vocabulary | None":
        """Read it; None when the file has no tokens.

        Raises
        ------
        FormatError
            A key has another type or length than it must have.
        """
        model = _string(gguf, "tokenizer.ggml.model")
        if model in ("", "no_vocab", "none") or gguf.value_type("tokenizer.ggml.tokens") is None:
            return None
        tokens = _strings(gguf, "tokenizer.ggml.tokens")
        if "" in tokens:
            tokens = [token or f"[EMPTY_{i}]" for i, token in enumerate(tokens)]
        ids = dict(zip(tokens, range(len(tokens)), strict=True))
        types = _integers(gguf, "tokenizer.ggml.token_type", len(tokens)) or [NORMAL] * len(tokens)
        special = {name: _token_id(gguf, f"tokenizer.ggml.{name}_token_id", len(tokens)) for name in _SPECIAL}
        for name, token_id in _DEFAULTS.get(model, {}).items():
            if special[name] is None and token_id < len(tokens):
                special[name] = token_id
        end_ids = _mark_ends(ids, types, {special["eos"], special["eot"], special["eom"]})
        name = _string(gguf, "general.name").lower()
        return Vocabulary(
            model=model,
            pre=_string(gguf, "tokenizer.ggml.pre"),
            tokens=tokens,
            ids=ids,
            types=types,
            scores=_scores(gguf, "tokenizer.ggml.scores", len(tokens)),
            merges=_strings(gguf, "tokenizer.ggml.merges") if gguf.value_type("tokenizer.ggml.merges") else [],
            bos_id=special["bos"],
            eos_id=special["eos"],
            unknown_id=special["unknown"],
            separator_id=special["seperator"],
            end_ids=end_ids,
            add_bos=_flag(gguf, "tokenizer.ggml.add_bos_token"),
            add_eos=_flag(gguf, "tokenizer.ggml.add_eos_token"),
            add_space_prefix=_flag(gguf, "tokenizer.ggml.add_space_prefix"),
            strips_after_special="phi-3" in name or "phi3" in name,
        )


_SPECIAL = ("bos", "eos", "eot", "eom", "unknown", "seperator", "padding")


def _mark_ends(ids: dict[str, int], types: list[int], declared: Collection[int | None]) -> frozenset[int]:
    """Ids that end an answer. `types` is corrected in place: such tokens are control tokens even where a file forgot to say so."""
    found = {token: ids[token] for token in (*_ENDS.split(), *_ALSO_CONTROL.split()) if token in ids}
    for i in found.values():
        types[i] = CONTROL
    for token in _SHOWN:
        if token in ids:
            types[ids[token]] = USER_DEFINED
    ends = {i for token, i in found.items() if token in _ENDS.split()} | {i for i in declared if i is not None}
    for texts in _FILL_IN_ENDS:
        ends.update([found[text] for text in texts.split() if text in found][:1])
    calls = "<|call|>" in found or "<|calls|>" in found
    if "<|end|>" in found and calls and ("<|flush|>" in found or ("<|return|>" in found and "<|call|>" in found)):
        ends.discard(found["<|end|>"])  # there it ends a message, not the answer
        types[found["<|end|>"]] = USER_DEFINED
    if "<|tool_response>" in found and "</s>" in found:  # an ordinary token of those vocabularies
        ends.discard(found["</s>"])
        types[found["</s>"]] = NORMAL
    return frozenset(ends)


def _string(gguf: "Gguf", key: str) -> str:
    value = gguf.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _wrong(gguf, key, "a string")
    return value


def _flag(gguf: "Gguf", key: str) -> bool | None:
    value = gguf.get(key)
    if value is not None and not isinstance(value, bool):
        raise _wrong(gguf, key, "a bool")
    return value


def _strings(gguf: "Gguf", key: str) -> list[str]:
    if gguf.value_type(key) != "array[string]":
        raise _wrong(gguf, key, "array[string]")
    value = gguf.get(key)
    assert isinstance(value, list)
    return value  # type: ignore[return-value]  # the type was looked at above, looking at each element would take longer than reading


def _integers(gguf: "Gguf", key: str, n_tokens: int) -> list[int]:
    return _array(gguf, key, ("array[i32]", "array[u32]"), n_tokens)  # type: ignore[return-value]  # as above


def _scores(gguf: "Gguf", key: str, n_tokens: int) -> list[float]:
    return _array(gguf, key, ("array[f32]", "array[i32]"), n_tokens)  # type: ignore[return-value]  # as above


def _array(gguf: "Gguf", key: str, types: tuple[str, ...], n_tokens: int) -> Sequence[object]:
    if gguf.value_type(key) is None:
        return []
    if gguf.value_type(key) not in types:
        raise _wrong(gguf, key, " or ".join(types))
    length = gguf.array_len(key) or 0
    if length < n_tokens:
        raise FormatError(f"{key}: found {length} numbers, expected one for each of the {n_tokens} tokens")
    value = gguf.get(key)
    assert isinstance(value, list)
    return value


def _token_id(gguf: "Gguf", key: str, n_tokens: int) -> int | None:
    value = gguf.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(gguf, key, "an unsigned number")
    return value if 0 <= value < n_tokens else None  # an id outside of the vocabulary stands for "none" in files that are in use


def _wrong(gguf: "Gguf", key: str, expected: str) -> FormatError:
    return FormatError(f"{key}: found {gguf.value_type(key) or 'nothing'}, expected {expected}")
