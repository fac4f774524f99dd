"""Which tokens begin, end, pad and separate texts, and which of them are added: from a folder's files to keys of a GGUF file.

The rules are those of llama.cpp's converter: a named token of ``tokenizer_config.json`` that is an added token of ``tokenizer.json``
comes first, then ids of ``config.json``; what is added to a text is read off the post-processor, then from ``add_bos_token``.
Source: https://github.com/ggml-org/llama.cpp/blob/0c1e57098/gguf-py/gguf/vocab.py, class ``SpecialVocab``.
"""

from dataclasses import dataclass, field

from quantrs.tokenization.bounded_json import JsonObject
from quantrs.tokenization.tokenizer_folder import TokenizerFolder, token_content

__all__ = ["SpecialTokens"]

_KEY_NAMES = {
    "bos": "bos",
    "eos": "eos",
    "unk": "unknown",
    "sep": "seperator",
    "pad": "padding",
    "mask": "mask",
    "eot": "eot",
    "eom": "eom",
}
"""The middle of ``tokenizer.ggml.<name>_token_id``; the key really is spelled ``seperator``."""

_ADDED_KEYS = ("bos", "eos", "sep")


@dataclass
class SpecialTokens:
    """Special tokens and the flags that go with them, in the order in which they were found."""

    ids: dict[str, int] = field(default_factory=dict)
    """By ``bos``, ``eos`` ..."""
    added: dict[str, bool] = field(default_factory=dict)
    """Whether ``bos``, ``eos``, ``sep`` are added to a text."""

    @staticmethod
    def of_folder(folder: TokenizerFolder, n_vocab: int) -> "SpecialTokens":
        """Read them; ids that are no token of a vocabulary of `n_vocab` are left out."""
        found = SpecialTokens()
        kinds = ["bos", "eos", "unk", "sep", "pad", "cls", "mask"]
        names = {kind: token_content((folder.tokenizer_config or {}).get(f"{kind}_token")) for kind in kinds}
        if folder.tokenizer_json is not None:
            names["bos"] = names["bos"] or names["cls"]
            names["eos"] = names["eos"] or names["sep"]
            _read_post_processor(folder.section("post_processor"), names, found.added)
        if folder.tokenizer_config is not None:
            kinds += [kind for kind in names if kind not in kinds]
            id_of = {token.text: token.token_id for token in reversed(folder.json_added_tokens)}
            for kind in kinds:
                flag = folder.tokenizer_config.get(f"add_{kind}_token")
                if isinstance(flag, bool):
                    found.added.setdefault(kind, flag)
                found._set(kind, id_of.get(names[kind] or ""), n_vocab)
        nested = folder.model_config.get("text_config")
        for kind in kinds:
            value = folder.model_config.get(f"{kind}_token_id")
            if value is None and isinstance(nested, dict):
                value = nested.get(f"{kind}_token_id")
            found._set(kind, value, n_vocab)
        return found

    def _set(self, kind: str, token_id: object, n_vocab: int) -> None:
        if isinstance(token_id, int) and not isinstance(token_id, bool) and 0 <= token_id < n_vocab:
            self.ids.setdefault(kind, token_id)

    def keys(self) -> list[tuple[str, int | bool, str]]:
        """Key, value and type, in the converter's order."""
        ids = [(f"tokenizer.ggml.{_KEY_NAMES[kind]}_token_id", value, "u32") for kind, value in self.ids.items() if kind in _KEY_NAMES]
        flags = [(f"tokenizer.ggml.add_{kind}_token", value, "bool") for kind, value in self.added.items() if kind in _ADDED_KEYS]
        return [*ids, *flags]


def _read_post_processor(processor: JsonObject, names: dict[str, str | None], added: dict[str, bool]) -> None:
    """What is put before and after a text; `names` gets the tokens that only the post-processor tells."""
    inner = processor.get("processors")
    for step in inner if isinstance(inner, list) else [processor]:
        if not isinstance(step, dict):
            continue
        match step.get("type"):
            case "ByteLevel":
                added.setdefault("bos", False)
                added.setdefault("eos", False)
            case "RobertaProcessing":
                added |= {"bos": True, "eos": True, "sep": True}
                names["cls"] = names["cls"] or _first(step.get("cls")) or names["bos"]
                names["sep"] = names["sep"] or _first(step.get("sep")) or names["eos"]
            case "TemplateProcessing":
                _read_template(step, names, added)


def _read_template(step: JsonObject, names: dict[str, str | None], added: dict[str, bool]) -> None:
    single = _template(step.get("single"))
    first = single[0][0] if len(single) > 1 else None
    last = single[-1][0] if len(single) > 1 else None
    if first:
        if first not in (names["bos"], names["cls"]):
            names["bos"] = names["bos"] or first
            names["cls"] = names["cls"] or first
        added["bos"] = first in (names["bos"], names["cls"])
    if last:
        if last != names["eos"]:  # the end token of a chat is another one than that of a text
            spare = next((kind for kind in ("eot", "eom") if kind not in names), None)
            if spare is not None:
                names[spare] = names["eos"]
            names["eos"] = last
        added["eos"] = True
    pair = _template(step.get("pair"))
    if not pair:
        return
    pair = pair[1 if first and pair[0][0] == first else 0 : -1 if last and pair[-1][0] == last else None]
    if len(pair) > 2 and pair[0][1] == "A" and pair[-1][1] == "B":
        between = [token for token, _ in pair[1:-1]]
        ends = {names["sep"], names["eos"]} - {None}
        added["sep"] = (between[0] in ends and not last) or (len(between) == 2 and between[1] in ends)
        if added["sep"] and not names["sep"]:
            names["sep"] = names["eos"]


def _template(value: object) -> list[tuple[str | None, str | None]]:
    """Special token and sequence of each entry."""
    out = []
    for entry in value if isinstance(value, list) else []:
        found: list[str | None] = []
        for kind in ("SpecialToken", "Sequence"):
            part = entry.get(kind) if isinstance(entry, dict) else None
            name = part.get("id") if isinstance(part, dict) else None
            found.append(name if isinstance(name, str) and name else None)
        out.append((found[0], found[1]))
    return out


def _first(value: object) -> str | None:
    return value[0] if isinstance(value, list) and value and isinstance(value[0], str) and value[0] else None
