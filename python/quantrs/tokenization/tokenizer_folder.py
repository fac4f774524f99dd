"""The tokenizer files of a Hugging Face folder, read with limits and checked for the shapes that everything else relies on."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from quantrs.errors import FormatError
from quantrs.tokenization.bounded_json import JsonObject, as_list, as_object, as_text, as_whole_number, read_object, read_text
from quantrs.tokenization.sentencepiece_model import SentencePieceModel

__all__ = ["AddedToken", "TokenizerFolder", "token_content"]

_MAX_CONFIG_BYTES = 64 << 20  # chat templates and thousands of added tokens live there
_MAX_TEMPLATE_BYTES = 8 << 20
_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class AddedToken:
    """A token that is looked for in the text before anything else."""

    token_id: int
    text: str
    special: bool
    """Not part of ordinary text."""
    normalized: bool
    """Looked for in the text after normalisation."""


@dataclass(frozen=True)
class TokenizerFolder:
    """A model folder, as far as its tokenizer goes."""

    path: Path
    model_config: Mapping[str, object]
    """Content of ``config.json``."""

    @cached_property
    def tokenizer_json(self) -> JsonObject | None:
        """Content of ``tokenizer.json``."""
        path = self.path / "tokenizer.json"
        return read_object(path) if path.is_file() else None

    @cached_property
    def tokenizer_config(self) -> JsonObject | None:
        """Content of ``tokenizer_config.json``."""
        path = self.path / "tokenizer_config.json"
        return read_object(path, _MAX_CONFIG_BYTES) if path.is_file() else None

    @property
    def tokenizer_class(self) -> str:
        """Name of the class that transformers uses, without ``Fast``; empty when not told."""
        name = (self.tokenizer_config or {}).get("tokenizer_class")
        return name.removesuffix("Fast") if isinstance(name, str) else ""

    def has(self, name: str) -> bool:
        """The folder holds a file of that name."""
        return (self.path / name).is_file()

    def section(self, name: str) -> JsonObject:
        """An object of ``tokenizer.json``; empty when it is null or missing."""
        value = (self.tokenizer_json or {}).get(name)
        return {} if value is None else as_object(value, f"{self.path / 'tokenizer.json'}: {name}")

    @cached_property
    def sentencepiece(self) -> SentencePieceModel:
        """Content of ``tokenizer.model``."""
        return SentencePieceModel.read(self.path / "tokenizer.model")

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Id by token, from ``tokenizer.json`` or ``vocab.json``; each id once, none negative."""
        if self.tokenizer_json is not None:
            where = f"{self.path / 'tokenizer.json'}: model.vocab"
            found = as_object(self.section("model").get("vocab"), where)
        else:
            where = str(self.path / "vocab.json")
            found = read_object(self.path / "vocab.json")
        by_id: dict[int, str] = {}
        for token, token_id in found.items():
            as_text(token, where)
            number = as_whole_number(token_id, f"{where}[{token!r}]")
            if number < 0:
                raise FormatError(f"{where}[{token!r}]: found id {number}, expected 0 or more")
            if by_id.setdefault(number, token) != token:
                raise FormatError(f"{where}: id {number} belongs to {by_id[number]!r} and to {token!r}; expected one token")
        return {token: token_id for token_id, token in by_id.items()}

    @cached_property
    def json_added_tokens(self) -> list[AddedToken]:
        """``added_tokens`` of ``tokenizer.json``, or ``added_tokens.json``."""
        if self.tokenizer_json is not None:
            where = f"{self.path / 'tokenizer.json'}: added_tokens"
            listed = self.tokenizer_json.get("added_tokens")
            return [_added(entry, None, f"{where}[{i}]") for i, entry in enumerate(as_list(listed, where))] if listed is not None else []
        return self.old_added_tokens

    @cached_property
    def old_added_tokens(self) -> list[AddedToken]:
        """``added_tokens.json``, which slow tokenizers write."""
        path = self.path / "added_tokens.json"
        if not path.is_file():
            return []
        return [
            AddedToken(_token_id(value, f"{path}[{token!r}]"), as_text(token, str(path)), special=False, normalized=True)
            for token, value in read_object(path).items()
        ]

    @cached_property
    def config_added_tokens(self) -> list[AddedToken]:
        """``added_tokens_decoder`` of ``tokenizer_config.json``."""
        listed = (self.tokenizer_config or {}).get("added_tokens_decoder")
        if listed is None:
            return []
        where = f"{self.path / 'tokenizer_config.json'}: added_tokens_decoder"
        out = []
        for key, entry in as_object(listed, where).items():
            if not (key.isascii() and key.isdigit() and len(key) < 10):
                raise FormatError(f"{where}: found the key {key!r}, expected an id")
            out.append(_added(entry, int(key), f"{where}[{key}]"))
        return out

    @cached_property
    def named_special(self) -> frozenset[str]:
        """Texts of begin token, end token and their like, and of the further special tokens."""
        config = self.tokenizer_config or {}
        values = [config.get(name) for name in _NAMED]
        more = config.get("additional_special_tokens")
        values += more if isinstance(more, list) else []
        extra = config.get("extra_special_tokens")
        values += list(extra.values()) if isinstance(extra, dict) else extra if isinstance(extra, list) else []
        return frozenset(text for value in values if (text := token_content(value)) is not None)

    def chat_template(self) -> str | list[tuple[str, str]] | None:
        """The template, or those of several names; what ``tokenizer_config.json`` holds goes before files of their own."""
        where = f"{self.path / 'tokenizer_config.json'}: chat_template"
        value = (self.tokenizer_config or {}).get("chat_template")
        if value is None and self.has("chat_template.jinja"):
            main = read_text(self.path / "chat_template.jinja", _MAX_TEMPLATE_BYTES)
            more = sorted((self.path / "additional_chat_templates").glob("*.jinja"))
            if not more:
                return main
            return [("default", main), *((path.stem, read_text(path, _MAX_TEMPLATE_BYTES)) for path in more)]
        if value is None and self.has("chat_template.json"):
            where = f"{self.path / 'chat_template.json'}: chat_template"
            value = read_object(self.path / "chat_template.json", _MAX_TEMPLATE_BYTES).get("chat_template")
        if value is None or isinstance(value, str):
            return None if value is None else as_text(value, where)
        templates = []
        for i, entry in enumerate(as_list(value, where)):
            one = as_object(entry, f"{where}[{i}]")
            templates.append((as_text(one.get("name"), f"{where}[{i}].name"), as_text(one.get("template"), f"{where}[{i}].template")))
        return templates


def token_content(value: object) -> str | None:
    """Text of a token that a file gives as a string or as an object with ``content``."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) and value else None


def _added(entry: object, token_id: int | None, where: str) -> AddedToken:
    token = as_object(entry, where)
    if token_id is None:
        token_id = _token_id(token.get("id"), f"{where}.id")
    content = as_text(token.get("content"), f"{where}.content")
    return AddedToken(token_id, content, special=token.get("special") is True, normalized=token.get("normalized") is not False)


def _token_id(value: object, where: str) -> int:
    number = as_whole_number(value, where)
    if number < 0:
        raise FormatError(f"{where}: found {number}, expected 0 or more")
    return number
