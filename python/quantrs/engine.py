"""Run a model: load it, give it tokens, get logits."""

import operator
import os
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from quantrs import _native
from quantrs.errors import InputError
from quantrs.open_model import open_model

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from quantrs.chat_template import ChatTemplate
    from quantrs.evaluation import Divergence, Perplexity
    from quantrs.generation import Generation
    from quantrs.tokenization import Tokenizer

__all__ = ["Session"]


class Session:
    """A loaded model.

    The file is mapped, not read: loading takes milliseconds, weights are used where they lie, and the system shares them between
    processes. A file that is truncated while it is in use ends the process, as with every program that maps its models.

    Parameters
    ----------
    path : path-like
        A GGUF file (of a split model, the first) or a checkpoint folder, of an architecture in `quantrs.families.FAMILIES`. Of a
        folder, what GGUF keeps otherwise (permuted rows, stacked experts) is copied into memory.
    threads : int, optional
        One per CPU when not given. Results do not depend on it.
    activations : {"int8", "float"}
        ``int8``: inputs of quantized weights are quantized too, as every fast CPU engine does. ``float``: none is. Float weights
        always meet float32 inputs.
    n_ctx : int, optional
        Tokens that the context holds: what the model was made for, at most 4096, when not given. Memory for keys and values grows
        with the tokens that are there. More tokens than it holds are refused, not shifted out.
    kv_type : {"f16", "f32", "q8_0", "q4_0"}, optional
        How keys and values are kept. When not given: ``f32`` with `activations` ``float``, and for a file whose matrices are all float32;
        else ``f16``.

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
        self.gguf = open_model(self.path, to_run=True)
        graph, n_ctx = graph_of(self.gguf, n_ctx=n_ctx)
        self.engine = _native.Engine.load(
            self.gguf,
            graph.to_json(),
            n_ctx=n_ctx,
            threads=threads,
            activations=activations,
            kv_type=kv_type or ("f32" if activations == "float" or self._is_float32() else "f16"),
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

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        """The model's tokenizer, made when first asked for."""
        from quantrs.tokenization import Tokenizer

        return Tokenizer.of_gguf(self.gguf)

    @cached_property
    def chat_template(self) -> "ChatTemplate":
        """The model's chat template; ChatML for a model without one."""
        from quantrs.chat_template import ChatTemplate

        return ChatTemplate.of_gguf(self.gguf, self.tokenizer)

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text, with begin and end token where the model wants them; see `Tokenizer.encode` for other ways."""
        return self.tokenizer.encode(text)

    def generate(
        self,
        prompt: "str | Sequence[int] | npt.NDArray[np.integer]",
        *,
        max_tokens: int | None = None,
        stop: str | Collection[str] = (),
        ignore_eos: bool = False,
        reuse: bool = False,
        temperature: float = 0.8,
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        repeat_penalty: float = 1.0,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        penalty_last_n: int = 64,
        seed: int | None = None,
    ) -> "Generation":
        """Go on with a text.

        Parameters
        ----------
        prompt : str or sequence of int
            Text (a begin token is put before it where the model wants one; the spelling of a control token becomes that token), or ids.
        max_tokens : int, optional
            At most that many. When not given: until the model ends the text or the context is full.
        stop : str or collection of str
            End before any of these comes; it is not given out.
        ignore_eos : bool
            Never choose a token that ends a text.
        reuse : bool
            Keep what the context and the prompt begin with in common, instead of computing it again. Faster for prompts that begin
            alike; the last bits of logits, and so now and then a token, may depend on what was there before.
        temperature, top_k, ... seed
            How tokens are chosen: see `quantrs.sampling.SamplingOptions`. Temperature 0 always takes the most likely one.

        Returns
        -------
        Generation
            An iterator of pieces of text (str). It ends without a piece when the context is full; nothing is shifted out.

        Raises
        ------
        InputError
            The prompt is empty, has ids outside the vocabulary, or is longer than the context. Raised here, not by the iterator.
        UsageError
            An option is out of range.

        Examples
        --------
        >>> import quantrs as qr
        >>> session = qr.Session("chat.gguf")
        >>> pieces = session.generate("Hello", max_tokens=3, temperature=0)
        >>> "".join(pieces), pieces.ending
        (', b', 'length')
        """
        from quantrs.generation import Generation
        from quantrs.sampling import SamplingOptions

        sampling = SamplingOptions(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            typical_p=typical_p,
            repeat_penalty=repeat_penalty,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            penalty_last_n=penalty_last_n,
            seed=seed,
        )
        ids = self.tokenizer.encode_prompt(prompt) if isinstance(prompt, str) else _token_ids(prompt)
        return Generation(
            self.engine, self.tokenizer, ids, max_tokens=max_tokens, stop=stop, ignore_eos=ignore_eos, reuse=reuse, sampling=sampling
        )

    def chat(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        max_tokens: int | None = None,
        stop: str | Collection[str] = (),
        temperature: float = 0.8,
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        repeat_penalty: float = 1.0,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        penalty_last_n: int = 64,
        seed: int | None = None,
    ) -> "Generation":
        """Answer a conversation, in the form that the model's chat template gives it.

        What the context holds of the conversation already is not computed again.

        Parameters
        ----------
        messages : sequence of mapping
            With ``role`` ("system", "user", "assistant") and ``content``, oldest first.
        max_tokens, stop, temperature, ... seed
            As for `generate`.

        Returns
        -------
        Generation
            An iterator of pieces of the answer (str).

        Raises
        ------
        FormatError
            The template is malformed, refuses these messages, or does what templates may not do.
        InputError
            The conversation is longer than the context.

        Examples
        --------
        >>> import quantrs as qr
        >>> answer = qr.Session("chat.gguf").chat([{"role": "user", "content": "Hello"}], temperature=0)
        >>> "".join(answer)
        'Hi!'
        """
        template = self.chat_template
        ids = self.tokenizer.encode_prompt(template.render(messages), rendered=True)
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        return self.generate(
            ids,
            max_tokens=max_tokens,
            stop=(*stops, *template.stops),
            reuse=True,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            typical_p=typical_p,
            repeat_penalty=repeat_penalty,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            penalty_last_n=penalty_last_n,
            seed=seed,
        )

    def embed(
        self,
        text: "str | Sequence[int] | npt.NDArray[np.integer]",
        *,
        pooling: Literal["mean", "last", "cls"] = "mean",
        normalize: bool = True,
    ) -> "npt.NDArray[np.float32]":
        """One vector for a text, from the hidden states after the last norm.

        Parameters
        ----------
        text : str or sequence of int
            Text, tokenized as `tokenize` does, or ids.
        pooling : {"mean", "last", "cls"}
            The mean over all tokens, the last token, or the first one.
        normalize : bool
            Scale to length 1, so that a scalar product of two is their cosine.

        Returns
        -------
        ndarray
            float32 ``[n_embd]``.

        Raises
        ------
        InputError
            No tokens, more than the context holds, or an unknown `pooling`.

        Examples
        --------
        >>> import quantrs as qr
        >>> qr.Session("model.gguf").embed([1, 2, 3]).shape
        (256,)
        """
        from quantrs.embedding import pool

        return pool(self.hidden(self.tokenize(text) if isinstance(text, str) else text), pooling, normalize=normalize)

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
        return self.engine.forward(_token_ids(ids), "all")

    def hidden(self, ids: "Sequence[int] | npt.NDArray[np.integer]") -> "npt.NDArray[np.float32]":
        """What the output matrix is multiplied with, after each token of a fresh context: float32 ``[n, n_embd]``."""
        self.engine.reset()
        return self.engine.forward(_token_ids(ids), "hidden")

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
        return self.engine.trace(_token_ids(ids), tensors=list(tensors), hidden=hidden)

    def __repr__(self) -> str:
        return f"Session({self.path!r}, n_ctx={self.n_ctx}, n_vocab={self.n_vocab})"


def _token_ids(ids: "Sequence[int] | npt.NDArray[np.integer]") -> list[int]:
    """Whole numbers only: a fraction or a text is a mistake that `int` would hide."""
    try:
        return [operator.index(i) for i in ids]
    except TypeError as error:
        found = " ".join(repr(ids).split())
        raise InputError(f"tokens: found {found:.60}, expected a sequence of whole numbers; tokenize() gives them for a text") from error
