"""Which tensors of a model are what: the engine's names for them, and the matrices that are quantized in checkpoint folders."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantrs.families.checkpoint_format import template_of

if TYPE_CHECKING:
    from quantrs._native import Gguf, Part, TensorInfo
    from quantrs.quantizing.source import HfModel

__all__ = ["Linear", "Place", "Stored", "find_linears", "stored_tensors", "unquantized_linears"]

Place = tuple[str, int | None]
"""What the engine calls a tensor (``blk.3.attn_q.weight``), and the expert, where it holds several experts' matrices."""

_ROUTERS = ("ffn_gate_inp", "ffn_gate_inp_shexp")
_NO_LINEARS = re.compile(
    r"(?:^|[._])(?:embed|embeddings?|embed_tokens|tokens?_embd|wte|wpe|lm_head|output|embed_out|shared|router|norm|ln|layernorm|conv\w*|rotary)"
    r"(?:[._\d]|$)|norm\w*\.weight$|vision|visual|audio|projector",
    re.IGNORECASE,
)
_ROUTER = re.compile(r"(?:^|\.)(?:gate|shared_expert_gate|router)\.weight$")
_HEAD = re.compile(r"(?:^|\.)(?:lm_head|embed_out)\.weight$")


@dataclass(frozen=True)
class Stored:
    """A tensor of the folder that the engine knows by another name."""

    tensor: "TensorInfo"
    """Under its name in the folder."""
    add: float
    """What the engine's values are more."""
    order: str
    """How the engine's rows come from those of the folder, as `quantrs._native.Part` takes it."""
    n_heads: int


@dataclass(frozen=True)
class Linear:
    """One matrix ``[out_features, in_features]``."""

    name: str
    """Of the module: ``model.layers.3.self_attn.q_proj``."""
    tensor: "TensorInfo"
    out_features: int
    in_features: int
    place: Place | None
    """None where the model cannot be run."""
    block: int | None
    """Number of its block, likewise."""


def find_linears(model: "HfModel", stored: Mapping[Place, Stored]) -> list[Linear]:
    """Every matrix that is quantized unless a rule says otherwise, in the order of the source.

    Of a known family those of the blocks, but for routers; of any other what looks like one by name and shape. Output matrices and
    embeddings stay as they are.
    """
    by_name = {found.tensor.name: (place, found) for place, found in stored.items()}
    linears = []
    for tensor in model.tensors.tensors:
        if not _is_matrix(model, tensor):
            continue
        place, block = None, None
        if model.gguf is not None:
            if tensor.name not in by_name:
                continue
            place, found = by_name[tensor.name]
            block = _block_of(place[0])
            if block is None or found.order == "transposed":
                continue
        elif _NO_LINEARS.search(tensor.name) or _ROUTER.search(tensor.name):
            continue
        linears.append(Linear(tensor.name.removesuffix(".weight"), tensor, tensor.dims[1], tensor.dims[0], place, block))
    return linears


def unquantized_linears(model: "HfModel", linears: "list[Linear]", quantized: "set[str]") -> list[str]:
    """Names of modules that a loader would take for linears, and that hold plain weights: output matrix, routers, skipped ones."""
    known = {linear.name for linear in linears}
    names = [
        name
        for tensor in model.tensors.tensors
        if (name := tensor.name.removesuffix(".weight")) not in quantized
        and _is_matrix(model, tensor)
        and (name in known or _HEAD.search(tensor.name) or _ROUTER.search(tensor.name))
    ]
    if model.config.get("tie_word_embeddings") and "lm_head" not in names:
        names.append("lm_head")
    return names


def stored_tensors(model: "HfModel") -> dict[Place, Stored]:
    """Every tensor of the folder that the engine finds as it lies; empty where the family is not known."""
    if model.gguf is None:
        return {}
    sources = model.tensors.sources
    by_byte = {(sources[tensor.parts[0].source], tensor.parts[0].offset): tensor for tensor in model.tensors.tensors}
    out: dict[Place, Stored] = {}
    for tensor in model.gguf.tensors:
        for place, first_byte, part in _matrices(model.gguf, tensor):
            found = by_byte.get(first_byte)
            if found is None:
                continue
            order, n_heads, add = ("as_stored", 0, -found.add) if part is None else (part.order, part.n_heads, tensor.add)
            if found.parts[0].order == "pairs_to_halves":  # as it came out of a GGUF file: the engine's rows are the other way round
                order, n_heads = "halves_to_pairs", found.parts[0].n_heads
            elif found.parts[0].order == "transposed":
                order = "transposed"
            out[place] = Stored(found, add, order, n_heads)
    return out


def _is_matrix(model: "HfModel", tensor: "TensorInfo") -> bool:
    return (
        len(model.shapes[tensor.name]) == 2
        and tensor.name.endswith(".weight")
        and tensor.type_name not in ("I8", "I16", "I32", "I64", "F64", None)
    )


def _block_of(name: str) -> int | None:
    """Number of the block that a matrix is quantized in; None for what is no linear or a router."""
    template, numbers = template_of(name)
    kind = template.removeprefix("blk.{i}.").removesuffix(".weight")
    return None if kind == template or kind in _ROUTERS or not numbers else numbers[0]


def _matrices(gguf: "Gguf", tensor: "TensorInfo") -> "Iterator[tuple[Place, tuple[str, int], Part | None]]":
    """For each matrix of a tensor its place, the source and offset of its first byte, and how it was assembled."""
    n_experts = math.prod(tensor.dims[2:])
    stacked = len(tensor.dims) > 2
    if tensor.parts:
        for expert, part in enumerate(tensor.parts):
            yield (tensor.name, expert if stacked else None), (gguf.sources[part.source], part.offset), part
        return
    for expert in range(n_experts):
        offset = tensor.offset + expert * (tensor.nbytes // n_experts)
        yield (tensor.name, expert if stacked else None), (tensor.file, offset), None
