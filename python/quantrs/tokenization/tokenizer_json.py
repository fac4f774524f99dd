"""A ``tokenizer.json`` of Hugging Face beside a model, run by the `tokenizers` library."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from quantrs.errors import FormatError
from quantrs.tokenization.bounded_json import as_list, as_object, as_text, parse_object, read_text
from quantrs.tokenization.encoders import SPACE
from quantrs.tokenization.tokenizers_errors import tokenizers_errors
from quantrs.tokenization.vocabulary import BYTE, CONTROL, NORMAL, UNUSED, USER_DEFINED, Vocabulary

if TYPE_CHECKING:
    from quantrs._native import Gguf

__all__ = ["TokenizerJson"]

MAX_TOKENS = 4_000_000


class TokenizerJson:
    """Encodes as the file says; its begin and end tokens are left to `Tokenizer`."""

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer

        self._path = path
        text = read_text(path)
        self._json = parse_object(text, str(path))
        with tokenizers_errors(str(path), "expected a tokenizer.json, remove it to use the model's own metadata"):
            self._tokenizer = Tokenizer.from_str(text)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def has_tokens(self, vocabulary: Vocabulary) -> bool:
        """Every token that both know has the same id, and the model knows them all. Converters write spaces into user-defined tokens."""
        mine = self._tokenizer.get_vocab(with_added_tokens=True)
        tokens = vocabulary.tokens
        return all(i < len(tokens) and tokens[i] in (token, token.replace(SPACE, " ")) for token, i in mine.items())

    def encode(self, text: str, after_special: bool) -> list[int]:
        """Ids of plain text."""
        return self.encode_whole(text, parse_special=False)

    def encode_whole(self, text: str, parse_special: bool) -> list[int]:
        """Ids of text with special tokens in it."""
        self._tokenizer.encode_special_tokens = not parse_special
        with tokenizers_errors(str(self._path), "expected rules that can cut this text; without the file the model's own metadata is used"):
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def vocabulary(self, gguf: "Gguf") -> Vocabulary:
        """The tokens of the file, for a model whose metadata has none; begin and end token by the metadata or their usual names."""
        by_token = self._tokenizer.get_vocab(with_added_tokens=True)
        n_tokens = max(by_token.values(), default=-1) + 1
        if n_tokens > MAX_TOKENS:
            raise FormatError(f"{self._path}: model.vocab: found id {n_tokens - 1}, expected less than {MAX_TOKENS}")
        tokens = [f"[EMPTY_{i}]" for i in range(n_tokens)]
        types = [UNUSED] * n_tokens
        for token, token_id in by_token.items():
            tokens[token_id], types[token_id] = token, NORMAL
        byte_level = "ByteLevel" in json.dumps(self._json.get("decoder"))
        if not byte_level:
            types = [BYTE if kind == NORMAL and _is_byte(token) else kind for token, kind in zip(tokens, types, strict=True)]
        where = f"{self._path}: added_tokens"
        for entry in as_list(self._json.get("added_tokens") or [], where):
            added = as_object(entry, where)
            found = by_token.get(as_text(added.get("content"), where))
            if found is not None:
                types[found] = CONTROL if added.get("special") else USER_DEFINED

        def special(key: str, names: str) -> int | None:
            value = gguf.get(f"tokenizer.ggml.{key}_token_id")
            if isinstance(value, int) and 0 <= value < n_tokens:
                return value
            return next((by_token[name] for name in names.split() if name in by_token), None)

        bos, eos = special("bos", "<s> <bos> <|begin_of_text|>"), special("eos", "</s> <eos> <|end_of_text|> <|endoftext|>")
        ends = {by_token[name] for name in ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>") if name in by_token}
        return Vocabulary(
            model="gpt2" if byte_level else "llama",
            pre="",
            tokens=tokens,
            ids=by_token,
            types=types,
            scores=[],
            merges=[],
            bos_id=bos,
            eos_id=eos,
            unknown_id=None,
            separator_id=None,
            end_ids=frozenset(ends | ({eos} if eos is not None else set())),
            add_bos=bos is not None and self._adds(bos),
            add_eos=False,
            add_space_prefix=False,
            strips_after_special=False,
        )

    def _adds(self, token_id: int) -> bool:
        ids: list[int] = self._tokenizer.encode("", add_special_tokens=True).ids
        return token_id in ids[:1]


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")
