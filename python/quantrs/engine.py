"""Run a GGUF model: load it, give it tokens, get logits."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from quantrs import _native
from quantrs.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from quantrs.evaluation import Divergence, Perplexity

__all__ = ["Session"]


class Session:
    """A loaded model.

    The file is mapped, not read: loading takes milliseconds, weights are used where they lie, and the system shares them between
    processes. A file that is truncated while it is in use ends the process, as with every program that maps its models.

    Parameters
    ----------
    path : path-like
        A GGUF file of an architecture in `quantrs.families.FAMILIES`; the first file of a split model opens them all.
    threads : int, optional
        One per CPU when not given. Results do not depend on it.
    activations : {"int8", "float"}
        ``int8``: inputs of quantized weights are quantized too, as every fast CPU engine does. ``float``: none is. Float weights
        always meet float32 inputs.
    n_ctx : int, optional
        Tokens that the context holds: what the model was made for, at most 4096, when not given. Memory for keys and values grows
        with the tokens that are there. More tokens than it holds are refused, not shifted out.
    kv_type : {"f16", "f32", "q8_0", "q4_0"}, optional
        How keys and values are kept. When not given: ``f32`` for a file whose matrices are all float32, else ``f16``.

    Raises
    ------
    FileError, FormatError
        The file cannot be read, is damaged, or its tensors contradict its metadata.
    InputError
        The architecture is not known, or an option is out of range.

    Examples
    --------
    >>> import quantrs as qr
    >>> session = qr.Session("model.gguf")
    >>> session.logits([1, 2, 3]).shape
    (3, 64)
    """

    def __init__(
        self,
        path: "str | os.PathLike[str]",
        *,
        threads: int | None = None,
        activations: Literal["int8", "float"] = "int8",
        n_ctx: int | None = None,
        kv_type: Literal["f16", "f32", "q8_0", "q4_0"] | None = None,
    ) -> None:
        from quantrs.families import graph_of

        if n_ctx is not None and n_ctx < 1:
            raise InputError(f"n_ctx is {n_ctx}; expected at least 1, or None for what the model was made for")
        self.path = os.fspath(path)
        self.gguf = _native.Gguf.open(self.path)
        graph, n_ctx = graph_of(self.gguf, n_ctx=n_ctx)
        self.engine = _native.Engine.load(
            self.gguf,
            graph.to_json(),
            n_ctx=n_ctx,
            threads=threads,
            activations=activations,
            kv_type=kv_type or ("f32" if self._is_float32() else "f16"),
        )

    def _is_float32(self) -> bool:
        return all(t.type_name == "F32" for t in self.gguf.tensors if len(t.dims) > 1)

    @property
    def n_ctx(self) -> int:
        """Tokens that the context holds."""
        return self.engine.n_ctx

    @property
    def n_vocab(self) -> int:
        """Size of the vocabulary."""
        return self.engine.n_vocab

    def logits(self, ids: "Sequence[int] | npt.NDArray[np.integer]") -> "npt.NDArray[np.float32]":
        """Logits after each token of a fresh context.

        Parameters
        ----------
        ids : sequence of int
            Token ids, ``[n]``.

        Returns
        -------
        ndarray
            float32 ``[n, n_vocab]``; row i scores what follows token i.

        Raises
        ------
        InputError
            No tokens, an id outside the vocabulary, or more than `n_ctx` of them.
        FormatError
            A result is not finite: the weights are damaged.
        """
        self.engine.reset()
        return self.engine.forward([int(i) for i in ids], "all")

    def hidden(self, ids: "Sequence[int] | npt.NDArray[np.integer]") -> "npt.NDArray[np.float32]":
        """What the output matrix is multiplied with, after each token of a fresh context: float32 ``[n, n_embd]``."""
        self.engine.reset()
        return self.engine.forward([int(i) for i in ids], "hidden")

    def perplexity(self, text: str, *, ctx: int = 512) -> "Perplexity":
        """How well the model predicts a text, as ``llama-perplexity`` defines it.

        The text is cut into chunks of `ctx` tokens, each of which starts from nothing (from the begin token where the model wants
        one); the second half of each is scored. What is left over is dropped, and so is one newline at the end of the text.

        Parameters
        ----------
        text : str
            At least ``2 * ctx`` tokens long. The spelling of a control token is ordinary text.
        ctx : int
            Tokens per chunk, at most `n_ctx`. Perplexities of different `ctx` cannot be compared.

        Returns
        -------
        Perplexity
            With ``perplexity`` and ``std_error``.

        Raises
        ------
        InputError
            The text is too short, or `ctx` is out of range.
        FormatError
            A result is not finite: the weights are damaged.
        """
        from quantrs.evaluation import perplexity

        return perplexity(self, text, ctx=ctx)

    def kl_divergence(self, other: "Session", text: str, *, ctx: int = 512) -> "Divergence":
        """How far this model is from another one, its unquantized form usually, over the tokens that `perplexity` scores.

        Both models run in step, so nothing is stored. Parameters and errors as `perplexity`.

        Parameters
        ----------
        other : Session
            The reference, with the same vocabulary. Not this very session.

        Returns
        -------
        Divergence
            With ``kl_mean``, ``kl_median``, ``kl_p99``, ``kl_max`` (nats), ``same_top`` (0 to 1), and all of `Perplexity`.
        """
        from quantrs.evaluation import kl_divergence

        return kl_divergence(self, other, text, ctx=ctx)

    def block_forward(self, block: int, x: "npt.NDArray[np.float32]") -> "npt.NDArray[np.float32]":
        """One block alone.

        Parameters
        ----------
        block : int
            From 0.
        x : ndarray
            float32 ``[n, n_embd]``: hidden states of the first n tokens of a context.

        Returns
        -------
        ndarray
            float32 ``[n, n_embd]``: what goes into the next block.
        """
        return self.engine.block_forward(block, x)

    def trace(
        self, ids: "Sequence[int] | npt.NDArray[np.integer]", tensors: Sequence[str] = (), *, hidden: bool = False
    ) -> "dict[str, npt.NDArray[np.float32]]":
        """Run a fresh context and keep what linears were given.

        Parameters
        ----------
        ids : sequence of int
            Token ids, ``[n]``.
        tensors : sequence of str
            Names of weights, such as ``blk.0.attn_q.weight``. Matrices that share their input are seen at the first of each name.
        hidden : bool
            Also keep what goes into each block, as ``blk.0`` to ``blk.N``; the last is what leaves the last block.

        Returns
        -------
        dict
            float32 ``[n, in_features]`` by name; for a tensor of experts ``NAME[expert]`` with the tokens routed there.
        """
        self.engine.reset()
        return self.engine.trace([int(i) for i in ids], tensors=list(tensors), hidden=hidden)

    def __repr__(self) -> str:
        return f"Session({self.path!r}, n_ctx={self.n_ctx}, n_vocab={self.n_vocab})"
