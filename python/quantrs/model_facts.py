"""Reads from a model's metadata what the mix rules ask for, with ``--override-kv`` applied as llama.cpp applies it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from quantrs.mixes import ModelFacts
from quantrs.options import KvOverride

if TYPE_CHECKING:
    from quantrs._native import Gguf

__all__ = ["read_model_facts"]


def read_model_facts(gguf: "Gguf", overrides: Iterable[KvOverride]) -> ModelFacts:
    """Facts of a model; what the metadata does not say is 0 or empty.

    Of several overrides of one key the first counts here (the last one is written, as upstream does).
    """
    reader = _Reader(gguf, overrides)
    architecture = reader.text("general.architecture")
    block_count = reader.integer(f"{architecture}.block_count")
    if architecture == "graniteswitch":  # upstream appends a layer for its router
        block_count += 1 - reader.integer(f"{architecture}.nextn_predict_layers")
    elif architecture == "nanbeige":  # upstream runs the layers several times and counts each
        block_count *= max(1, reader.integer(f"{architecture}.num_loops"))
    head_count = reader.of_first_layer(f"{architecture}.attention.head_count", 0)
    return ModelFacts(
        architecture=architecture,
        block_count=block_count,
        head_count=head_count,
        head_count_kv=reader.of_first_layer(f"{architecture}.attention.head_count_kv", head_count),
        expert_count=reader.integer(f"{architecture}.expert_count"),
    )


class _Reader:
    def __init__(self, gguf: "Gguf", overrides: Iterable[KvOverride]) -> None:
        self._gguf = gguf
        self._overrides: dict[str, KvOverride] = {}
        for override in overrides:
            self._overrides.setdefault(override.key, override)

    def text(self, key: str) -> str:
        override = self._overrides.get(key)
        value = override.value if override and override.value_type == "string" else self._gguf.get(key)
        return value if isinstance(value, str) else ""

    def integer(self, key: str) -> int:
        override = self._overrides.get(key)
        value = override.value if override and override.value_type == "u32" else self._gguf.get(key)
        return int(value) if isinstance(value, int) else 0

    def of_first_layer(self, key: str, default: int) -> int:
        """A number, or the first of an array with one per layer; overrides need the key and cannot replace an array."""
        value = self._gguf.get(key)
        if isinstance(value, list):
            return value[0] if value and isinstance(value[0], int) else default
        return default if value is None else self.integer(key)
