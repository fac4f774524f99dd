"""A model run one block at a time, so that it is never whole in memory, and with weights of a block exchanged for others."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from quantrs import _native
from quantrs.errors import FormatError, InputError
from quantrs.families.spec import Linear, Norm

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from quantrs._native import AssembledTensor, Gguf, TensorInfo
    from quantrs.families.spec import GraphSpec

__all__ = ["Block", "Blocks", "Replacement"]

_EMPTY = "empty.weight"
"""What stands for embedding, norm and output in a model of one block."""
_HARMLESS = ("rope_f", ".rope.freqs", "attn_rot_embd")


@dataclass(frozen=True)
class Replacement:
    """Values in place of a tensor's own."""

    parts: "Sequence[NDArray[np.float32]]"
    """float32, C-contiguous: rows ``[n_rows, in_features]`` that follow each other (experts one by one), or the one vector ``[n]``."""
    order: str = "as_stored"
    """How the rows of each part lie: see `_native.Part`. ``halves_to_pairs`` for rotated matrices as Hugging Face keeps them."""
    n_heads: int = 0
    """For `order`."""

    @staticmethod
    def like(tensor: "TensorInfo", parts: "Sequence[NDArray[np.float32]]") -> "Replacement":
        """Parts that lie as those of an assembled `tensor` do: what a checkpoint folder calls by a name each.

        Rows that are stored as columns are not among them: `parts` are ``[out_features, in_features]`` always.
        """
        first = tensor.parts[0] if tensor.parts else None
        if first is None or first.order == "transposed":
            return Replacement(parts)
        return Replacement(parts, first.order, first.n_heads)


class Block:
    """One block, loaded. Results do not depend on the number of threads."""

    def __init__(self, index: int, engine: "_native.Engine") -> None:
        self.index = index
        self._engine = engine

    def forward(self, x: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """What leaves the block.

        Parameters
        ----------
        x : ndarray
            float32 ``[n, n_embd]``: hidden states of one sequence, from its first token on.

        Returns
        -------
        ndarray
            float32 ``[n, n_embd]``.

        Raises
        ------
        FormatError
            A result is not finite.
        InputError
            Rows of another length, or more of them than `Blocks` was opened for.
        """
        return self._engine.block_forward(0, x)

    def trace(self, x: "NDArray[np.float32]", tensors: Sequence[str]) -> "tuple[dict[str, NDArray[np.float32]], NDArray[np.float32]]":
        """The inputs of linears, and what leaves the block, in one pass.

        Parameters
        ----------
        x : ndarray
            float32 ``[n, n_embd]``: hidden states of one sequence, from its first token on.
        tensors : sequence of str
            Names of weights of this block. Those that share their input have equal ones: ask for one of them.

        Returns
        -------
        inputs : dict
            float32 ``[n, in_features]`` by name; for a tensor of experts ``NAME[expert]`` with the tokens routed there, if any.
        y : ndarray
            float32 ``[n, n_embd]``.

        Raises
        ------
        FormatError
            A value is not finite; the message names the first of `tensors` whose input is not, else the block.
        InputError
            As `forward`.
        """
        return self._engine.block_trace(0, x, list(tensors))


class Blocks:
    """A model's blocks, each loaded when it is opened: only its own tensors are read, and nothing is kept of the others.

    Activations stay float32, and so do keys and values.

    Parameters
    ----------
    source : Gguf
        Any model of a known family: `open_model` with ``to_run``.
    n_ctx : int
        Tokens of the longest sequence.
    threads : int, optional
        One per CPU when not given.

    Raises
    ------
    InputError
        The family is not known.
    FormatError
        The model has tensors that its family does not use.
    """

    def __init__(self, source: "Gguf", *, n_ctx: int, threads: int | None = None) -> None:
        from quantrs.families import graph_of

        self.source = source
        self.threads = threads
        self.graph, self.n_ctx = graph_of(source, n_ctx=n_ctx)
        self._tensors = {tensor.name: tensor for tensor in source.tensors}
        unused = sorted(self._tensors.keys() - set(self._names(self.graph)))
        unused = [name for name in unused if not any(part in name for part in _HARMLESS)]
        if unused:
            raise FormatError(
                f"{source.sources[0]}: the model's architecture does not use {unused[0]} and {len(unused) - 1} more tensors; "
                "get a file made for this architecture"
            )

    def __len__(self) -> int:
        return len(self.graph.blocks)

    @property
    def n_embd(self) -> int:
        """Values per token between blocks."""
        return self.graph.n_embd

    @property
    def n_vocab(self) -> int:
        """Size of the vocabulary."""
        return self.graph.n_vocab

    def tensors(self, i: int) -> "dict[str, TensorInfo]":
        """The tensors that block `i` uses, in the order of the graph."""
        return {name: self._tensors[name] for name in self._names(self.graph.blocks[i])}

    def embed(self, ids: Sequence[int]) -> "NDArray[np.float32]":
        """What goes into block 0.

        Parameters
        ----------
        ids : sequence of int
            Token ids of one sequence, ``[n]``.

        Returns
        -------
        ndarray
            float32 ``[n, n_embd]``.

        Raises
        ------
        InputError
            No tokens, an id outside the vocabulary, or more tokens than `n_ctx`.
        """
        return self._embedding.embed(ids)

    def open(self, i: int, replaced: Mapping[str, Replacement] | None = None) -> Block:
        """Load block `i`.

        Parameters
        ----------
        i : int
            From 0.
        replaced : mapping, optional
            Tensors of the block, by name, that are to be others. Their arrays must not be written to while the block is in use.

        Raises
        ------
        InputError
            A name is none of the block's, or an array does not have the shape that its tensor asks for.
        """
        return Block(i, self._load(self._of_block(i), replaced or {}))

    @cached_property
    def _embedding(self) -> "_native.Engine":
        whole = self.graph
        n_vocab, table = whole.n_vocab, whole.token_embd
        output = Linear(table, None, whole.n_embd, n_vocab, n_vocab)
        before = dataclasses.replace(self._of_block(0), n_vocab=n_vocab, token_embd=table, position_embd=whole.position_embd, output=output)
        return self._load(before, {})

    def _of_block(self, i: int) -> "GraphSpec":
        """The graph with one block, and nothing before and after it."""
        n_embd = self.graph.n_embd
        return dataclasses.replace(
            self.graph,
            n_vocab=1,
            blocks=(self.graph.blocks[i],),
            output_norm=Norm("rms", _EMPTY, None, 1e-5),
            output=Linear(_EMPTY, None, n_embd, 1, 1),
            token_embd=_EMPTY,
            position_embd=None,
        )

    def _load(self, graph: "GraphSpec", replaced: Mapping[str, Replacement]) -> "_native.Engine":
        import numpy as np

        names = list(self._names(graph))
        unknown = sorted(replaced.keys() - set(names))
        if unknown:
            raise InputError(f"{unknown[0]}: is none of the block's tensors, expected one of {', '.join(names)}")
        n_sources = len(self.source.sources)
        sources: list[tuple[str, NDArray[np.uint8]]] = [(_EMPTY, np.zeros(4 * graph.n_embd, np.uint8))]
        added = [_native.AssembledTensor(_EMPTY, (graph.n_embd,), "F32", [_native.Part(n_sources, 0, "F32", 1)])]
        for name, replacement in replaced.items():
            added.append(_assembled(self._tensors[name], replacement, n_sources + len(sources)))
            sources.extend((name, part.reshape(-1).view(np.uint8)) for part in replacement.parts)
        gguf = self.source.selected([name for name in names if name not in replaced], sources, added)
        return _native.Engine.load(gguf, graph.to_json(), n_ctx=self.n_ctx, threads=self.threads, activations="float", kv_type="f32")

    def _names(self, part: object) -> Iterator[str]:
        """Names of the model's tensors that a part of the graph uses, each once."""
        return iter(dict.fromkeys(name for name in _strings(part) if name in self._tensors))


def _strings(part: object) -> Iterator[str]:
    """All texts in a record."""
    if isinstance(part, str):
        yield part
    elif isinstance(part, tuple):
        for member in part:
            yield from _strings(member)
    elif dataclasses.is_dataclass(part):
        for field in dataclasses.fields(part):
            yield from _strings(getattr(part, field.name))


def _assembled(tensor: "TensorInfo", replacement: Replacement, first_source: int) -> "AssembledTensor":
    """The tensor made of the replacement's parts, which lie in sources of their own."""
    import numpy as np

    n_cols, parts = tensor.dims[0], []
    for i, values in enumerate(replacement.parts):
        if values.dtype != np.float32 or not values.flags.c_contiguous or values.ndim == 0 or values.shape[-1] != n_cols:
            layout = "" if values.flags.c_contiguous else ", not contiguous"
            raise InputError(
                f"{tensor.name}: part {i} is {values.dtype} {values.shape}{layout}, expected contiguous float32 with {n_cols} columns"
            )
        n_rows = values.size // n_cols
        parts.append(_native.Part(first_source + i, 0, "F32", n_rows, replacement.order, replacement.n_heads))
    return _native.AssembledTensor(tensor.name, tensor.dims, "F32", parts)
