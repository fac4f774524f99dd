"""Which tensors are written, in which order and under which names: sorting, ``--keep-split`` and ``--prune-layers``."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from quantrs._native import Gguf, TensorInfo
from quantrs.errors import InputError
from quantrs.mixes import layer_of

__all__ = ["ArrangedTensor", "Arrangement", "arrange", "in_order"]


@dataclass(frozen=True)
class ArrangedTensor:
    """A tensor that will be written."""

    name: str
    """In the written file."""
    dims: tuple[int, ...]
    """Row length first, no trailing dimensions of 1."""
    type_name: str
    """In the source."""
    split: int
    """Index of the source file, from 0."""
    source: TensorInfo


@dataclass(frozen=True)
class Arrangement:
    """The tensors in the order of writing."""

    tensors: tuple[ArrangedTensor, ...]
    n_layers: int | None
    """How many layers are left; None when none was pruned."""


def in_order(gguf: Gguf) -> list[TensorInfo]:
    """Tensors outside the layers first, then layer by layer; by name within."""
    # Code points sort as their UTF-8 bytes do.
    return sorted(gguf.tensors, key=lambda info: (-1 if (layer := layer_of(info.name)) is None else layer, info.name))


def arrange(gguf: Gguf, *, prune_layers: Sequence[int], keep_split: bool, keep_shapes: bool = False) -> Arrangement:
    """Arrange the tensors of a model.

    Raises
    ------
    InputError
        A layer to prune is absent, or no layer would be left; a tensor's type is not known to this build; the split of a model
        that is no GGUF file is to be kept.
    """
    if keep_split and gguf.is_assembled:
        raise InputError("--keep-split: the source is no split GGUF model; its shards cannot be kept; leave the option out")
    split_of = {path: index for index, path in enumerate(gguf.sources)}
    renumbering = _Renumbering(prune_layers)
    tensors = []
    for info in in_order(gguf):
        if info.type_name is None:
            raise InputError(
                f"{info.name} has ggml type id {info.type_id}, which this version of quantrs does not know; "
                "update quantrs, or start from a file of other types"
            )
        name = renumbering.new_name(info.name)
        if name is not None:
            dims = info.dims if keep_shapes else _without_trailing_ones(info.dims)
            tensors.append(ArrangedTensor(name, dims, info.type_name, split_of[info.file], info))
    if prune_layers:
        renumbering.check()
    if keep_split:
        tensors.sort(key=lambda tensor: (tensor.split, tensor.source.offset))
    return Arrangement(tuple(tensors), renumbering.n_layers if prune_layers else None)


class _Renumbering:
    """New layer numbers in the order of asking: those before the first pruned layer stay, later ones move up."""

    _LAYER = re.compile(r"blk\.([0-9]+)\.")

    def __init__(self, prune_layers: Sequence[int]) -> None:
        self._prune = sorted(prune_layers)
        self._new: dict[int, int | None] = {}
        self.n_layers = 0

    def new_name(self, name: str) -> str | None:
        """The name in the written file, None for a tensor of a pruned layer."""
        match = self._LAYER.search(name) if self._prune else None
        if match is None:
            return name
        layer = int(match[1])
        if layer not in self._new:
            if layer in self._prune:
                self._new[layer] = None
            else:
                self._new[layer] = layer if layer < self._prune[0] else self.n_layers
                self.n_layers = layer + 1 if layer < self._prune[0] else self.n_layers + 1
        new = self._new[layer]
        return None if new is None else f"{name[: match.start(1)]}{new}{name[match.end(1) :]}"

    def check(self) -> None:
        """Raise `InputError` if the wish does not suit the model; after all names were asked for."""
        absent = [layer for layer in self._prune if layer not in self._new]
        if absent:
            last = max(self._new, default=-1)
            raise InputError(f"--prune-layers: the model has no layer {absent[0]}; its layers are 0 to {last}")
        if not self.n_layers:
            raise InputError("--prune-layers: no layer would be left")


def _without_trailing_ones(dims: tuple[int, ...]) -> tuple[int, ...]:
    n_dims = len(dims)
    while n_dims > 1 and dims[n_dims - 1] == 1:
        n_dims -= 1
    return dims[:n_dims] or (1,)
