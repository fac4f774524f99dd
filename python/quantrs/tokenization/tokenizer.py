"""The tokenizer of a model: special tokens, begin and end tokens, the pieces of text that ids stand for."""

import codecs
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from quantrs.errors import FormatError, InputError
from quantrs.tokenization.encoders import BYTE_OF_CHARACTER, SPACE, ByteLevelBpe, Encoder, SentencePiece, WordPiece
from quantrs.tokenization.pre_tokenizers import pre_tokenizer
from quantrs.tokenization.vocabulary import BYTE, CONTROL, UNKNOWN, UNUSED, USER_DEFINED, Vocabulary

if TYPE_CHECKING:
    from quantrs._native import Gguf
    from quantrs.tokenization.tokenizer_json import TokenizerJson

__all__ = ["PieceStream", "Tokenizer"]


class Tokenizer:
    """Text to ids and back.

    Made by `Tokenizer.of_gguf`; equal to llama.cpp's tokenizer of the same file.
    """

    def __init__(self, vocabulary: Vocabulary, *, override: "TokenizerJson | None" = None) -> None:
        self.vocabulary = vocabulary
        self._override = override
        self._encoder: Encoder
        add_bos, add_eos = False, False
        if override is not None:
            self._encoder = override
        elif vocabulary.model == "gpt2":
            pre = pre_tokenizer(vocabulary.pre)
            self._encoder = ByteLevelBpe(vocabulary, pre)
            add_bos = pre.add_bos
        elif vocabulary.model == "llama":
            self._encoder = SentencePiece(vocabulary)
            add_bos = True
        elif vocabulary.model == "bert":
            self._encoder = WordPiece(vocabulary)
            add_bos, add_eos = True, True
        else:
            raise FormatError(
                f"tokenizer.ggml.model: found {vocabulary.model!r}, expected gpt2, llama or bert;"
                " put the model's tokenizer.json beside the file to use that instead"
            )
        self.add_bos = add_bos if vocabulary.add_bos is None else vocabulary.add_bos
        """A begin token goes before a text."""
        self.add_eos = add_eos if vocabulary.add_eos is None else vocabulary.add_eos
        """An end token (for WordPiece the separator) goes after a text."""
        self._special = sorted(
            (i for i, kind in enumerate(vocabulary.types) if kind in (CONTROL, USER_DEFINED, UNKNOWN)),
            key=lambda i: len(vocabulary.tokens[i].encode("utf-8", "surrogateescape")),
            reverse=True,
        )

    @staticmethod
    def of_gguf(gguf: "Gguf") -> "Tokenizer":
        """Read a model's tokenizer.

        A ``tokenizer.json`` in the model's folder is used instead of the metadata if it gives every token the same id
        (or if the metadata has no tokens, or a kind that only it describes).

        Raises
        ------
        FormatError
            The metadata is damaged, or describes a tokenizer that is not known here and there is no ``tokenizer.json``.
        """
        vocabulary = Vocabulary.of_gguf(gguf)
        beside = Path(gguf.files[0]).parent / "tokenizer.json"
        if beside.is_file():
            from quantrs.tokenization.tokenizer_json import TokenizerJson

            override = TokenizerJson(beside)
            if vocabulary is None:
                return Tokenizer(override.vocabulary(gguf), override=override)
            if override.has_tokens(vocabulary):
                return Tokenizer(vocabulary, override=override)
        if vocabulary is None:
            raise FormatError("tokenizer.ggml.tokens: found none, expected a vocabulary; put the model's tokenizer.json beside the file")
        return Tokenizer(vocabulary)

    @property
    def n_tokens(self) -> int:
        """Size of the vocabulary."""
        return len(self.vocabulary.tokens)

    @property
    def bos_id(self) -> int | None:
        """Begin token."""
        return self.vocabulary.bos_id

    @property
    def eos_id(self) -> int | None:
        """End token."""
        return self.vocabulary.eos_id

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return self.vocabulary.end_ids

    def token_text(self, token_id: int | None) -> str:
        """Text of a token as templates use it; empty for None."""
        return "" if token_id is None else self.piece(token_id, special=True).decode("utf-8", "replace")

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """Ids of a text.

        Parameters
        ----------
        text
            Any text, of any length.
        add_special
            Begin and end tokens are added where the model wants them.
        parse_special
            The spelling of a control token, such as ``<|im_end|>``, becomes that token; if False it is ordinary text.

        Raises
        ------
        InputError
            The text holds half of a surrogate pair, which no encoding can express.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"text: found a lone surrogate at character {error.start}, expected Unicode text") from None
        out: list[int] = []
        vocabulary = self.vocabulary
        if add_special and self.add_bos and vocabulary.bos_id is not None:
            out.append(vocabulary.bos_id)
        if self._override is not None:
            out += self._override.encode_whole(text, parse_special)
        else:
            after_special = True
            for part in self._parts(text, parse_special):
                if isinstance(part, int):
                    out.append(part)
                else:
                    out += self._encoder.encode(part, after_special)
                after_special = isinstance(part, int)
        if add_special and self.add_eos:
            end = vocabulary.separator_id if vocabulary.model == "bert" else vocabulary.eos_id
            if end is not None:
                out.append(end)
        return out

    def encode_prompt(self, text: str, *, rendered: bool = False) -> list[int]:
        """Ids of a text that is to be gone on with: a begin token where the model wants one, no end token.

        Parameters
        ----------
        text
            Any text; the spelling of a control token becomes that token.
        rendered
            It comes from a chat template, which may have put the begin token there itself.
        """
        begins = rendered and self.bos_id is not None and text.startswith(self.token_text(self.bos_id))
        ids = self.encode(text, add_special=not begins)
        if self.add_eos and not begins and ids and ids[-1] in (self.eos_id, self.vocabulary.separator_id):
            del ids[-1]
        return ids

    def _parts(self, text: str, parse_special: bool) -> list[str | int]:
        """Text and special tokens in order: the longest special tokens are looked for first, in what is left the next ones."""
        parts: list[str | int] = [text] if text else []
        for token_id in self._special:
            token = self.vocabulary.tokens[token_id]
            if token not in text or (not parse_special and self.vocabulary.types[token_id] != USER_DEFINED):
                continue
            strips = self.strips_after(token)
            cut: list[str | int] = []
            for part in parts:
                if isinstance(part, int):
                    cut.append(part)
                    continue
                first, *rest = part.split(token)
                cut += [first] if first else []
                for piece in rest:
                    cut.append(token_id)
                    kept = piece.lstrip(" \t\n\v\f\r") if strips else piece
                    cut += [kept] if kept else []
            parts = cut
        return parts

    def strips_after(self, token: str) -> bool:
        """White space after a special token is dropped."""
        return self.vocabulary.strips_after_special and token not in ("<unk>", "<s>", "<|endoftext|>")

    def piece(self, token_id: int, *, special: bool = False) -> bytes:
        """UTF-8 bytes that a token stands for, not always whole characters. Control tokens are empty unless `special`."""
        vocabulary = self.vocabulary
        if not 0 <= token_id < len(vocabulary.tokens):
            raise InputError(f"token id: found {token_id}, expected 0 to {len(vocabulary.tokens) - 1}")
        token, kind = vocabulary.tokens[token_id], vocabulary.types[token_id]
        raw = token.encode("utf-8", "surrogateescape")
        if kind in (CONTROL, UNKNOWN):
            return raw if special else b""
        if kind == USER_DEFINED:
            return raw
        if kind == UNUSED:
            return b""
        if kind == BYTE:
            return _byte(token)
        if vocabulary.model == "gpt2":
            return b"".join(
                bytes([BYTE_OF_CHARACTER[char]]) if char in BYTE_OF_CHARACTER else char.encode("utf-8", "surrogateescape") for char in token
            )
        return raw.replace(SPACE.encode(), b" ")

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """Text of ids; bytes that are no UTF-8 become U+FFFD. The space that encoding put before a text is taken off again."""
        kept = [i for i in ids if not (i == self.bos_id and not special)]
        data = b"".join(self.piece(i, special=special) for i in kept)
        adds_space = self.vocabulary.model == "bert" or (
            self.vocabulary.model == "llama" and self.vocabulary.add_space_prefix is not False and self._override is None
        )
        return data.decode("utf-8", "replace").removeprefix(" " if adds_space else "")

    def stream(self, *, special: bool = False) -> "PieceStream":
        """A decoder for ids that come one by one."""
        return PieceStream(self, special)


class PieceStream:
    """Turns ids into text as they come; bytes of an unfinished character wait for the rest of it."""

    def __init__(self, tokenizer: Tokenizer, special: bool = False) -> None:
        self._tokenizer = tokenizer
        self._special = special
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """Text that the token completes, often empty within an emoji."""
        return self._decoder.decode(self._tokenizer.piece(token_id, special=self._special))

    def finish(self) -> str:
        """U+FFFD if a character was left unfinished."""
        return self._decoder.decode(b"", final=True)


def _byte(token: str) -> bytes:
    """``<0x0A>`` is byte 10; a byte token of another form stands for its own text."""
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        try:
            return bytes([int(token[3:5], 16)])
        except ValueError:
            pass
    return token.encode("utf-8", "surrogateescape")
