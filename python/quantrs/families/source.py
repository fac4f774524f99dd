"""What a family builder reads: hyperparameters and tensor names of a GGUF file, checked as they are read."""

import re
import struct
from typing import TYPE_CHECKING

from quantrs._native import Sources
from quantrs.errors import FormatError, InputError

if TYPE_CHECKING:
    from quantrs._native import Gguf

__all__ = ["Source"]

_MAX_FACTORS = 65_536
_BLOCK = re.compile(r"blk\.(\d+)\.")


class Source:
    """A model's metadata and the names of its tensors.

    Keys are given without the architecture's prefix: ``attention.head_count``.
    """

    def __init__(self, gguf: "Gguf", *, n_ctx: int | None = None) -> None:
        self._gguf = gguf
        self.architecture = str(gguf.get("general.architecture") or "")
        self._tensors = {t.name: t.dims for t in gguf.tensors}
        self.n_embd = self.integer("embedding_length")
        self.n_blocks = self._check_block_count()
        self.n_ctx_train = self.integer("context_length")
        self.n_vocab = self._check_vocabulary()
        self.n_ctx = n_ctx if n_ctx is not None else min(self.n_ctx_train, DEFAULT_N_CTX)

    def _fail(self, key: str, found: object, expected: str) -> FormatError:
        return FormatError(f"{self._gguf.sources[0]}: key '{self.architecture}.{key}' is {found!r}, expected {expected}")

    def has(self, tensor: str) -> bool:
        """Whether the file holds this tensor."""
        return tensor in self._tensors

    def value(self, key: str) -> object:
        """A hyperparameter as it is, or None."""
        return self._gguf.get(f"{self.architecture}.{key}")

    def integer(self, key: str, default: int | None = None, *, at_least: int = 1) -> int:
        """A whole number of at least `at_least`; an absent key without a default is an error."""
        value = self.value(key)
        if value is None and default is not None:
            return default
        return self._integer(key, value, at_least)

    def _integer(self, key: str, value: object, at_least: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not at_least <= value < 2**31:
            raise self._fail(key, value, f"a whole number of {at_least} to 2147483647")
        return value

    def of_block(self, key: str, i: int, default: int | None = None) -> int:
        """A whole number that is the same for all blocks, or an array with one for each."""
        value = self.value(key)
        if isinstance(value, list):
            if len(value) < self.n_blocks:
                raise self._fail(key, f"an array of {len(value)}", f"one number for each of {self.n_blocks} blocks")
            return self._integer(key, value[i], 1)
        return self.integer(key, default)

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number."""
        value = self.value(key)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
            raise self._fail(key, value, "a finite number")
        return float(value)

    def optional(self, key: str) -> float | None:
        """A number, or None when it is absent or zero, which is how writers say "none"."""
        return self.number(key, 0.0) or None

    def text(self, key: str, default: str = "") -> str:
        """A string."""
        value = self.value(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self._fail(key, value, "a string")
        return value

    def flag(self, key: str, *, default: bool = False) -> bool:
        """A truth value."""
        value = self.value(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._fail(key, value, "true or false")
        return value

    def _check_block_count(self) -> int:
        """The number of blocks, which has to be that of the tensors: before anything is sized by it."""
        count = self.integer("block_count")
        found = {int(m[1]) for m in map(_BLOCK.match, self._tensors) if m}
        n_found = max(found, default=-1) + 1
        if count != n_found or len(found) != n_found:
            raise self._fail("block_count", count, f"{len(found)}, the number of blocks that the file has tensors for")
        return count

    def _check_vocabulary(self) -> int:
        """Rows of the embedding, which have to be as many as the tokenizer's tokens."""
        dims = self._tensors.get("token_embd.weight")
        if dims is None:
            raise FormatError(f"{self._gguf.sources[0]}: no tensor token_embd.weight; this is not a language model")
        n_vocab = dims[1] if len(dims) > 1 else 1
        n_tokens = self._gguf.array_len("tokenizer.ggml.tokens")
        if n_tokens is not None and n_tokens != n_vocab:
            raise FormatError(
                f"{self._gguf.sources[0]}: the tokenizer has {n_tokens} tokens, token_embd.weight {n_vocab} rows; "
                "get a file whose tokenizer belongs to the model"
            )
        return n_vocab

    def factors(self, tensor: str) -> list[float] | None:
        """The values of a small float32 tensor, or None when the file has none of that name."""
        info = next((t for t in self._gguf.tensors if t.name == tensor), None)
        if info is None:
            return None
        if info.type_name != "F32" or not 0 < info.nbytes <= 4 * _MAX_FACTORS:
            raise FormatError(f"{info.file}: {tensor} is {info.nbytes} bytes of {info.type_name}, expected at most {_MAX_FACTORS} of F32")
        values = struct.unpack(f"<{info.nbytes // 4}f", Sources(self._gguf).read(info))
        if not all(abs(value) < float("inf") for value in values):
            raise FormatError(f"{info.file}: {tensor} holds values that are not finite; get the file again")
        return list(values)

    def unsupported(self, what: str) -> InputError:
        """An error for a variant of a family that the engine cannot run."""
        return InputError(f"{self._gguf.sources[0]}: {self.architecture} with {what} cannot be run by this version")


DEFAULT_N_CTX = 4096
"""Tokens of context where none are asked for and the model was made for more: what most chats need, in little memory."""
