"""``general.*`` keys as the reference converter finds them: names in folder and configuration, the model card, sampling defaults.

The heuristics follow gguf-py's ``metadata.py`` (llama.cpp 0c1e57098), so that files get the same names.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from quantrs.families.checkpoint_format import Entry
from quantrs.huggingface.folder import Folder
from quantrs.huggingface.model_card import read_model_card

__all__ = ["general_keys", "name_parts", "parameter_label", "size_label"]

_SAMPLING = (
    ("top_k", "general.sampling.top_k", "i32"),
    ("top_p", "general.sampling.top_p", "f32"),
    ("min_p", "general.sampling.min_p", "f32"),
    ("temperature", "general.sampling.temp", "f32"),
    ("repetition_penalty", "general.sampling.penalty_repeat", "f32"),
)
_CARD_TEXTS = (
    ("author", ("author", "model_author", "model_creator")),
    ("version", ("version", "model_version")),
    ("organization", ("organization", "model_organization")),
    ("finetune", ("finetune", "model_finetune")),
    ("basename", ("basename", "model_basename", "model_type")),
    ("description", ("description", "model_description")),
    ("size_label", ("size_label", "model_size_label")),
)
_ORDER = ("name", "author", "version", "organization", "finetune", "basename", "description", "size_label")
_PREFIX = {"T": 12, "B": 9, "M": 6, "K": 3}


@dataclass(frozen=True)
class NameParts:
    """What a model's name tells."""

    full: str
    organization: str | None = None
    basename: str | None = None
    finetune: str | None = None
    version: str | None = None
    size_label: str | None = None


def general_keys(folder: Folder, architecture: str, shapes: Mapping[str, Sequence[int]]) -> list[Entry]:
    """All keys up to the architecture's own; `shapes` are those of the GGUF tensors, row length first."""
    card = read_model_card(folder.path / "README.md")
    n_parameters = sum(math.prod(shape) for shape in shapes.values())
    found: dict[str, str] = {}
    for field, names in _CARD_TEXTS:
        value = next((card[name] for name in names if name in card), None)
        if isinstance(value, str):
            found[field] = value
    name = next((card[key] for key in ("name", "model_name") if key in card), None)
    if isinstance(name, str):
        found["name"] = name
    for source in _named_by(folder):
        parts = name_parts(source, n_parameters)
        guesses = {
            "name": title(parts.full),
            "organization": title(parts.organization) if parts.organization else None,
            "basename": parts.basename,
            "finetune": parts.finetune,
            "version": parts.version,
            "size_label": parts.size_label,
        }
        for field, guess in guesses.items():
            if guess is not None:
                found.setdefault(field, guess)
    found.setdefault("size_label", size_label(shapes))
    entries: list[Entry] = [("general.architecture", architecture, "string"), ("general.type", "model", "string")]
    entries += _sampling(folder.generation)
    entries += [(f"general.{field}", found[field], "string") for field in _ORDER if found.get(field)]
    return entries + _licence_and_tags(card)


def _named_by(folder: Folder) -> Iterable[str]:
    stated = folder.settings.get("_name_or_path") if folder.settings else None
    if isinstance(stated, str) and stated and stated.count("/") <= 1:
        yield stated
    yield folder.name


def _sampling(generation: Mapping[str, object]) -> list[Entry]:
    entries: list[Entry] = []
    for name, key, value_type in _SAMPLING:
        value = generation.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 2**31:
            continue
        entries.append((key, int(value) if value_type == "i32" else float(value), value_type))
    return entries


def _licence_and_tags(card: "Mapping[str, str | list[str]]") -> list[Entry]:
    entries: list[Entry] = []
    for field, key in (("license", "license"), ("license_name", "license.name"), ("license_link", "license.link")):
        value = card.get(field)
        if value:
            entries.append((f"general.{key}", ",".join(value) if isinstance(value, list) else value, "string"))
    entries += _base_models(card)
    for key, fields in (("tags", ("tags", "pipeline_tag")), ("languages", ("languages", "language"))):
        lists = [card[field] for field in fields if field in card]
        values = [item for value in lists for item in ([value] if isinstance(value, str) else value)]
        if values:
            entries.append((f"general.{key}", values, "array[string]"))
    return entries


def _base_models(card: "Mapping[str, str | list[str]]") -> list[Entry]:
    entries: list[Entry] = []
    for kind, fields in (("base_model", ("base_model", "base_models")), ("dataset", ("datasets", "dataset"))):
        value = next((card[field] for field in fields if field in card), None)
        if value is None:
            continue
        models = [value] if isinstance(value, str) else value
        entries.append((f"general.{kind}.count", len(models), "u32"))
        for i, model in enumerate(models):
            prefix = f"general.{kind}.{i}"
            if model.startswith(("http://", "https://", "ssh://")):
                entries.append((f"{prefix}.repo_url", model, "string"))
                continue
            parts = name_parts(model, 0)
            entries.append((f"{prefix}.name", title(parts.full), "string"))
            if parts.version:
                entries.append((f"{prefix}.version", parts.version, "string"))
            if parts.organization:
                entries.append((f"{prefix}.organization", title(parts.organization), "string"))
                entries.append((f"{prefix}.repo_url", f"https://huggingface.co/{parts.organization}/{parts.full}", "string"))
    return entries


def title(text: str) -> str:
    """Words with capitals, but for versions and what has capitals already.

    Examples
    --------
    >>> title("tiny-LLaMA-v1.1-chat")
    'Tiny LLaMA v1.1 Chat'
    """
    words = text.strip().replace("-", " ").split()
    return " ".join(word.title() if word.islower() and not re.fullmatch(r"v\d+(?:\.\d+)*|\d.*", word) else word for word in words)


_VERSION = re.compile(r"(v|iter)?\d+([.]\d+)*", re.IGNORECASE)
_STORED_AS = re.compile(r"i?q\d(_\w)*|b?fp?(16|32)", re.IGNORECASE)
_SIZE = re.compile(r"(([A]|\d+[x])?\d+([._]\d+)?[KMBT][\d]?|small|mini|medium|large|x?xl)", re.IGNORECASE)
_TUNING = re.compile(r"chat|instruct|vision|lora", re.IGNORECASE)


def name_parts(model_id: str, n_parameters: int) -> NameParts:
    """Take ``organization/Base-7B-Instruct-v0.2`` apart.

    Examples
    --------
    >>> parts = name_parts("mistralai/Mistral-7B-Instruct-v0.2", 0)
    >>> parts.organization, parts.basename, parts.finetune, parts.version, parts.size_label
    ('mistralai', 'Mistral', 'Instruct', 'v0.2', '7B')
    """
    if " " in model_id:
        return NameParts(model_id)
    organization, _, full = model_id.partition("/") if "/" in model_id else ("", "", model_id)
    kinds: list[tuple[str, set[str]]] = []
    for part in filter(None, full.split("-")):
        kinds.append(_kind_of(part, is_first=not kinds, n_parameters=n_parameters))
    if any("size_label" in kind and any(map(str.isdecimal, part)) for part, kind in kinds):
        for part, kind in kinds:
            if part.isalpha():
                kind.discard("size_label")
    at_start = True
    for part, kind in kinds:
        if at_start and ((not kind and part[0].isalpha()) or "version" in kind):
            kind.add("basename")
            continue
        at_start = False
        if not kind:
            kind.add("finetune")
    for _, kind in reversed(kinds):
        if "basename" not in kind or len(kind) == 1:
            break
        kind.remove("basename")

    def joined(wanted: str, *, without: str = "") -> str | None:
        parts = [part for part, kind in kinds if wanted in kind and without not in kind]
        return "-".join(dict.fromkeys(parts) if wanted == "size_label" else parts) or None

    size, finetune, version = joined("size_label"), joined("finetune"), joined("version", without="basename")
    basename = joined("basename") if size or finetune or version else None
    organization = "" if organization.startswith(".") else organization
    return NameParts(full, organization or None, basename, finetune, version, size)


def _kind_of(part: str, *, is_first: bool, n_parameters: int) -> tuple[str, set[str]]:
    if _VERSION.fullmatch(part):
        return part, {"version"}
    if _STORED_AS.fullmatch(part):
        return part.upper(), {"type"}
    if not is_first and _SIZE.fullmatch(part):
        return _size_part(part.replace("_", "."), n_parameters)
    if not is_first and _TUNING.fullmatch(part):
        return part, {"finetune"}
    return part, set()


def _size_part(part: str, n_parameters: int) -> tuple[str, set[str]]:
    """A size, unless the model is of quite another one: then it is likely a length of context."""
    if part[-1].isdecimal():  # 7b1 is 7.1b
        part = f"{part[:-2]}.{part[-1]}{part[-2]}"
    if len(part) > 1 and part[-2].isdecimal() and part[-1] in "kmbt":
        part = part[:-1] + part[-1].upper()
    if n_parameters:
        try:
            stated = float(part[:-1]) * 10.0 ** _PREFIX.get(part[-1], 0)
        except ValueError:
            return part, {"size_label"}
        if abs(stated - n_parameters) > 7 * n_parameters // 8:
            return part[:-1] + part[-1].lower(), {"finetune"}
    return part, {"size_label"}


def size_label(shapes: Mapping[str, Sequence[int]]) -> str:
    """Parameters, rounded; of a mixture of experts the number of experts and what one of them uses."""
    shared, per_expert, counts = 0, 0, []
    for name, shape in shapes.items():
        n_values = math.prod(shape)
        if "_exps." in name and len(shape) > 2:
            counts.append(shape[2])
            per_expert += n_values // shape[2]
        else:
            shared += n_values
    label = parameter_label(shared + per_expert)
    return f"{sum(counts) // len(counts)}x{label}" if counts else label


def parameter_label(n: int) -> str:
    """Two digits or more, and a letter.

    Examples
    --------
    >>> parameter_label(1_400_000), parameter_label(361_000), parameter_label(7_240_000_000)
    ('1.4M', '361K', '7.2B')
    """
    letter = next((letter for letter, power in _PREFIX.items() if n > 10**power), "K")
    scaled = n / 10 ** _PREFIX[letter]
    decimals = max(2 - len(str(round(scaled)).lstrip("0")), 0)
    return f"{scaled:.{decimals}f}{letter}"
