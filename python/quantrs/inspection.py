"""``quantrs inspect``: what a GGUF file holds, from its header alone."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantrs.text import human_bytes, printable, table

if TYPE_CHECKING:
    from quantrs._native import Gguf, TensorInfo
    from quantrs.checkpoint import MetadataValue

__all__ = ["Inspection"]

_JSON_HEAD = 8
_JSON_WHOLE = 64
_TEXT_HEAD = 4
_TEXT_CHARS = 100


@dataclass(frozen=True)
class Inspection:
    """A header, ready to be shown."""

    gguf: "Gguf"
    whole_arrays: bool = False
    """Show long arrays in full."""

    @property
    def bits_per_weight(self) -> float:
        """Over all tensors, without metadata."""
        n_weights = sum(_n_weights(tensor) for tensor in self.gguf.tensors)
        return 8 * self._tensor_bytes() / n_weights if n_weights else 0.0

    def to_json(self) -> dict[str, object]:
        """A JSON value: ``files``, ``version``, ``alignment``, sizes, ``metadata``, ``tensors``, ``notices``.

        Arrays of more than 64 elements become ``{"type", "length", "head"}`` unless `whole_arrays`; floats that JSON cannot
        hold become the texts ``NaN``, ``Infinity``, ``-Infinity``.
        """
        gguf = self.gguf
        return {
            "files": list(gguf.files),
            "version": gguf.version,
            "alignment": gguf.alignment,
            "data_offset": gguf.data_offset,
            "file_bytes": gguf.file_size,
            "tensor_bytes": self._tensor_bytes(),
            "weights": sum(_n_weights(tensor) for tensor in gguf.tensors),
            "bits_per_weight": self.bits_per_weight,
            "metadata": {key: self._json_value(key) for key in gguf.keys()},
            "tensors": [
                {
                    "name": tensor.name,
                    "shape": list(reversed(tensor.dims)),
                    "type": _type_name(tensor),
                    "bytes": tensor.nbytes,
                    "offset": tensor.offset,
                    "file": tensor.file,
                }
                for tensor in gguf.tensors
            ],
            "notices": list(gguf.notices),
        }

    def __str__(self) -> str:
        gguf = self.gguf
        container = f"GGUF version {gguf.version}, alignment {gguf.alignment}"
        if gguf.is_assembled:
            container = "checkpoint folder, told in the terms of GGUF"
        lines = [
            f"{printable(gguf.files[0])}" + (f" and {len(gguf.files) - 1} more" if len(gguf.files) > 1 else ""),
            f"{container}, {len(gguf.keys())} keys, {len(gguf.tensors)} tensors, {human_bytes(gguf.file_size)}",
            *(f"notice: {printable(text)}" for text in gguf.notices),
            "",
            table(["key", "type", "value"], [[key, gguf.value_type(key) or "", self._text_value(key)] for key in gguf.keys()]),
            "",
            table(
                ["tensor", "shape", "type", "bytes"],
                [[t.name, " x ".join(map(str, reversed(t.dims))), _type_name(t), str(t.nbytes)] for t in gguf.tensors],
                right="3",
            ),
            "",
            self._totals(),
        ]
        return "\n".join(lines)

    def _totals(self) -> str:
        by_type: dict[str, list[int]] = {}
        for tensor in self.gguf.tensors:
            by_type.setdefault(_type_name(tensor), []).append(tensor.nbytes)
        counts = ", ".join(f"{len(sizes)} {name} ({human_bytes(sum(sizes))})" for name, sizes in by_type.items())
        n_weights = sum(_n_weights(tensor) for tensor in self.gguf.tensors)
        return f"{n_weights:,} weights in {human_bytes(self._tensor_bytes())}, {self.bits_per_weight:.4f} bits per weight" + (
            f": {counts}" if counts else ""
        )

    def _tensor_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.gguf.tensors)

    def _json_value(self, key: str) -> object:
        value = self.gguf.get(key)
        if not isinstance(value, list):
            return _json_scalar(value)
        if self.whole_arrays or len(value) <= _JSON_WHOLE:
            return [_json_scalar(item) for item in value]
        head = [_json_scalar(item) for item in value[:_JSON_HEAD]]
        return {"type": self.gguf.value_type(key), "length": len(value), "head": head}

    def _text_value(self, key: str) -> str:
        value = self.gguf.get(key)
        if not isinstance(value, list):
            return _shortened(str(value), self.whole_arrays)
        shown: list[MetadataValue] = list(value if self.whole_arrays else value[:_TEXT_HEAD])
        items = ", ".join(repr(item) if isinstance(item, str) else str(item) for item in shown)
        return _shortened(f"[{items}", self.whole_arrays) + ("]" if len(shown) == len(value) else f", ... {len(value)} elements]")


def _n_weights(tensor: "TensorInfo") -> int:
    return math.prod(tensor.dims) if tensor.type_name is not None else 0


def _type_name(tensor: "TensorInfo") -> str:
    return tensor.type_name or f"unknown (id {tensor.type_id})"


def _shortened(text: str, whole: bool) -> str:
    return text if whole or len(text) <= _TEXT_CHARS else f"{text[:_TEXT_CHARS]}... ({len(text)} characters)"


def _json_scalar(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
