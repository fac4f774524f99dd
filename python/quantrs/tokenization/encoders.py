"""From plain text, free of special tokens, to ids: one class per kind of vocabulary."""

import re
import unicodedata
from collections.abc import Callable
from functools import cached_property
from itertools import pairwise
from typing import Protocol

from quantrs.tokenization.pair_merging import merge_pairs
from quantrs.tokenization.pre_tokenizers import PreTokenizer, word_splitter
from quantrs.tokenization.vocabulary import Vocabulary

__all__ = ["BYTE_OF_CHARACTER", "SPACE", "ByteLevelBpe", "Encoder", "SentencePiece", "WordPiece"]

SPACE = "▁"
"""Stands for a space in SentencePiece and WordPiece vocabularies."""


def _byte_of_character() -> dict[str, int]:
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + i): byte for i, byte in enumerate(others)}


BYTE_OF_CHARACTER = _byte_of_character()
"""Byte-level vocabularies spell each byte as a character: printable Latin-1 as itself, the others from U+0100 on."""


class Encoder(Protocol):
    """What a tokenizer needs of a vocabulary."""

    def encode(self, text: str, after_special: bool) -> list[int]:
        """Ids of text that holds no special token; `after_special` at the beginning and after a special token."""


class ByteLevelBpe:
    """Words from a pre-tokenizer, bytes merged within each. Merged in Python with a cache of words: a table of merges is ready
    in a few milliseconds, building one in the `tokenizers` library takes as long as reading the first tokens of a model.
    """

    def __init__(self, vocabulary: Vocabulary, pre: PreTokenizer) -> None:
        self._ids = vocabulary.ids
        self._pre = pre
        last = len(vocabulary.merges) - 1
        self._ranks = {merge: last - i for i, merge in enumerate(reversed(vocabulary.merges))}  # of equal ones the first counts
        self._cache: dict[str, list[int]] = {}

    @cached_property
    def _split(self) -> Callable[[str], list[str]]:
        return word_splitter(self._pre.patterns)

    def encode(self, text: str, after_special: bool) -> list[int]:
        """See `Encoder`."""
        out: list[int] = []
        cache = self._cache
        for word in self._split(text):
            ids = cache.get(word)
            if ids is None:
                ids = self._word(word)
                if len(word) <= _CACHED_WORD and len(cache) < _CACHED_WORDS:
                    cache[word] = ids
            out += ids
        return out

    def _word(self, word: str) -> list[int]:
        if word in self._ids and (self._pre.whole_words or len(word) == 1):
            return [self._ids[word]]
        ranks = self._ranks
        out: list[int] = []
        for part in merge_pairs(list(word), lambda left, right: ranks.get(f"{left} {right}")):
            if part in self._ids:
                out.append(self._ids[part])
            else:  # a vocabulary that lacks the result of a merge, or a byte: what it does not have is left out
                out += [self._ids[char] for char in part if char in self._ids]
        return out


_CACHED_WORD, _CACHED_WORDS = 64, 200_000


class SentencePiece:
    """Characters merged by the score of what they become, bytes for characters that are no token.

    Files made from a ``tokenizer.json`` alone give every token the same score. If such a file lists merges, as those of quantrs do, their
    order is used instead: that is the model's own, while llama.cpp merges from the left.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._ids = vocabulary.ids
        self._scores = vocabulary.scores or [0.0] * len(vocabulary.tokens)
        self._ranks: dict[str, int] | None = None
        if vocabulary.merges and not vocabulary.scores_tell:
            last = len(vocabulary.merges) - 1
            self._ranks = {merge: last - i for i, merge in enumerate(reversed(vocabulary.merges))}
        self._add_space = vocabulary.add_space_prefix is not False
        self._cache: dict[str, list[int]] = {}

    def encode(self, text: str, after_special: bool) -> list[int]:
        """See `Encoder`."""
        text = text.replace(" ", SPACE)
        if self._add_space and after_special:
            text = SPACE + text
        if len(text) < _SHORT_TEXT:
            return self._merge(text)
        out: list[int] = []
        for word in self._cut(text):
            ids = self._cache.get(word)
            if ids is None:
                ids = self._merge(word)
                if len(word) <= _CACHED_WORD and len(self._cache) < _CACHED_WORDS:
                    self._cache[word] = ids
            out += ids
        return out

    def _cut(self, text: str) -> list[str]:
        """Pieces between which nothing can merge."""
        starts = [0, *(match.start() for match in self._boundaries.finditer(text)), len(text)]
        return [text[a:b] for a, b in pairwise(starts) if a < b]

    @cached_property
    def _boundaries(self) -> re.Pattern[str]:
        """Matches at a space mark that no token holds together with the character before it."""
        inner = {char for token in self._vocabulary.tokens if SPACE in token for char in re.findall(f"(?s)(.)(?={SPACE})", token)}
        return re.compile(f"(?<=[^{re.escape(''.join(sorted(inner | {SPACE})))}]){SPACE}")

    def _merge(self, text: str) -> list[int]:
        ids, scores, ranks = self._ids, self._scores, self._ranks

        def rank(left: str, right: str) -> float | None:
            found = ids.get(left + right)
            if ranks is not None:
                return None if found is None else ranks.get(f"{left} {right}")
            return None if found is None else -scores[found]

        out: list[int] = []
        for part in merge_pairs(list(text), rank):
            found = ids.get(part)
            if found is not None:
                out.append(found)
            else:
                out += self._bytes(part)
        return out

    def _bytes(self, char: str) -> list[int]:
        found = [self._ids.get(f"<0x{byte:02X}>") for byte in char.encode()]
        known = [x for x in found if x is not None]
        if len(known) == len(found):
            return known
        unknown = self._vocabulary.unknown_id
        return [] if unknown is None else [unknown]


_SHORT_TEXT = 2000  # below it, looking for the boundaries of a vocabulary costs more than it saves


class WordPiece:
    """Words without accents and capitals, cut into the longest tokens from the left (BERT)."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._ids = vocabulary.ids
        self._longest = max(map(len, vocabulary.tokens), default=0)
        self._unknown = vocabulary.unknown_id

    def encode(self, text: str, after_special: bool) -> list[int]:
        """See `Encoder`."""
        out: list[int] = []
        for word in self._words(text):
            out += self._pieces(SPACE + word)
        return out

    def _pieces(self, word: str) -> list[int]:
        out: list[int] = []
        start = 0
        while start < len(word):
            for end in range(min(len(word), start + self._longest), start, -1):
                found = self._ids.get(word[start:end])
                if found is not None:
                    out.append(found)
                    start = end
                    break
            else:
                return [] if self._unknown is None else [self._unknown]
        return out

    @staticmethod
    def _words(text: str) -> list[str]:
        spaced = []
        for char in unicodedata.normalize("NFD", text):
            category = unicodedata.category(char)
            if char.isspace():
                spaced.append(" ")
            elif category in ("Cc", "Cf", "Mn") or char in "\0\ufffd":
                continue
            elif category[0] == "P" or (category[0] == "S" and char < "\x7f") or _is_chinese(ord(char)):
                spaced.append(f" {char.lower()} ")
            else:
                spaced.append(char.lower())
        return "".join(spaced).split()


def _is_chinese(code: int) -> bool:
    return any(first <= code <= last for first, last in _CHINESE)


_CHINESE = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
