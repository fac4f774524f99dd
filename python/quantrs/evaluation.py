"""How good a model is: perplexity of a text, and divergence from another model. Both as ``llama-perplexity`` defines them.

The text is cut into chunks of `ctx` tokens; what is left over is dropped. Each chunk starts from nothing, with the begin token in
place of its first one where the model wants one. Its second half is scored: tokens at ``ctx // 2 + 1`` to ``ctx - 1``, each given all
that comes before it in the chunk.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from quantrs.errors import InputError
from quantrs.text import table

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from quantrs.engine import Session

    Values = npt.NDArray[np.float64]

__all__ = ["MIN_CTX", "Divergence", "EvaluationStep", "Perplexity", "kl_divergence", "perplexity"]

MIN_CTX = 8
"""Tokens of the smallest chunk: fewer leave nothing to be given and scored."""


@dataclass(frozen=True)
class Perplexity:
    """How well a model predicts a text."""

    perplexity: float
    """exp of the mean of -ln p(token), over the scored tokens."""
    std_error: float
    """Of the perplexity, taking the tokens as independent."""
    n_scored: int
    """Tokens that were scored."""
    n_chunks: int
    ctx: int
    """Tokens per chunk."""
    n_tokens: int
    """Tokens of the text."""

    def to_json(self) -> dict[str, object]:
        """A JSON value with the fields; None for what is not finite."""
        return {key: value if math.isfinite(value) else None for key, value in asdict(self).items()}

    def __str__(self) -> str:
        return f"perplexity {self.perplexity:.4f} +/- {self.std_error:.5f}\n{self._basis()}"

    def _basis(self) -> str:
        return f"{self.n_scored} tokens scored in {self.n_chunks} chunks of {self.ctx}; the text has {self.n_tokens}"


@dataclass(frozen=True)
class Divergence(Perplexity):
    """How far a model is from a reference, over the scored tokens of a text. Divergences are in nats."""

    reference_perplexity: float
    log_ratio: float
    """ln(perplexity / reference_perplexity)."""
    log_ratio_std_error: float
    """The errors of both models at the same token hang together, so this is far smaller than theirs."""
    kl_mean: float
    """Kullback-Leibler divergence of the model's distribution from the reference's."""
    kl_std_error: float
    kl_median: float
    kl_p90: float
    """90 % of the tokens have less."""
    kl_p95: float
    kl_p99: float
    kl_p999: float
    kl_max: float
    delta_p_mean: float
    """By how much the probability of the right token changed, 0 to 1."""
    delta_p_rms: float
    same_top: float
    """For which part of the tokens both find the same one likeliest, 0 to 1."""
    same_top_std_error: float

    def __str__(self) -> str:
        rows = [
            ["perplexity", f"{self.perplexity:.4f} +/- {self.std_error:.5f}"],
            ["perplexity of the reference", f"{self.reference_perplexity:.4f}"],
            ["ln(ratio)", f"{self.log_ratio:.6f} +/- {self.log_ratio_std_error:.6f}"],
            ["KL divergence, mean", f"{self.kl_mean:.6f} +/- {self.kl_std_error:.6f}"],
            ["KL divergence, median", f"{self.kl_median:.6f}"],
            ["KL divergence, 90 %", f"{self.kl_p90:.6f}"],
            ["KL divergence, 95 %", f"{self.kl_p95:.6f}"],
            ["KL divergence, 99 %", f"{self.kl_p99:.6f}"],
            ["KL divergence, 99.9 %", f"{self.kl_p999:.6f}"],
            ["KL divergence, largest", f"{self.kl_max:.6f}"],
            ["change of p, mean", f"{self.delta_p_mean:.3%}"],
            ["change of p, RMS", f"{self.delta_p_rms:.3%}"],
            ["same likeliest token", f"{self.same_top:.3%} +/- {self.same_top_std_error:.3%}"],
        ]
        return table(["measure", "value"], rows) + f"\n{self._basis()}"


@dataclass(frozen=True)
class EvaluationStep:
    """Where an evaluation is after a chunk."""

    n_done: int
    n_chunks: int
    perplexity: float
    """Of the chunks so far."""
    kl_mean: float | None
    """Likewise, where there is a reference."""


Watch = Callable[[EvaluationStep], None]


def perplexity(session: "Session", text: str, *, ctx: int = 512, max_chunks: int | None = None, watch: Watch | None = None) -> Perplexity:
    """Perplexity of a text; `Session.perplexity` says more.

    Parameters
    ----------
    session : Session
        The model; what its context holds is forgotten.
    text : str
        What is to be predicted. One newline at its end is dropped.
    ctx : int
        Tokens per chunk.
    max_chunks : int, optional
        Stop after so many chunks.
    watch : callable, optional
        Is given an `EvaluationStep` after each chunk.
    """
    import numpy as np

    chunks = _Chunks(session, text, ctx, max_chunks)
    scores: list[Values] = []
    for chunk in chunks:
        session.engine.reset()
        scores.append(session.engine.score(chunk, ctx // 2))
        if watch is not None:
            watch(EvaluationStep(len(scores), len(chunks), _exp(np.concatenate(scores).mean()), None))
    return _perplexity_of(chunks, np.concatenate(scores))


def kl_divergence(
    session: "Session", reference: "Session", text: str, *, ctx: int = 512, max_chunks: int | None = None, watch: Watch | None = None
) -> Divergence:
    """Divergence of a model from `reference`; `Session.kl_divergence` says more. Parameters as `perplexity`."""
    import numpy as np

    if session is reference:
        raise InputError("the model and its reference are the same session; load the file a second time to compare it with itself")
    chunks = _Chunks(session, text, ctx, max_chunks)
    _check_same_vocabulary(session, reference)
    _check_room(reference, ctx)
    parts: list[tuple[Values, Values, Values, npt.NDArray[np.bool_]]] = []
    for chunk in chunks:
        session.engine.reset()
        reference.engine.reset()
        parts.append(session.engine.compare(reference.engine, chunk, ctx // 2))
        if watch is not None:
            nll_so_far, kl_so_far = (float(np.concatenate([part[i] for part in parts]).mean()) for i in (0, 2))
            watch(EvaluationStep(len(parts), len(chunks), _exp(nll_so_far), kl_so_far))
    nll, reference_nll, kl, same_top = (np.concatenate(column) for column in zip(*parts, strict=True))
    p90, p95, p99, p999 = (float(np.quantile(kl, q)) for q in (0.9, 0.95, 0.99, 0.999))
    delta_p, same = np.exp(-nll) - np.exp(-reference_nll), float(same_top.mean())
    found = _perplexity_of(chunks, nll)
    return Divergence(
        perplexity=found.perplexity,
        std_error=found.std_error,
        n_scored=found.n_scored,
        n_chunks=found.n_chunks,
        ctx=found.ctx,
        n_tokens=found.n_tokens,
        reference_perplexity=_exp(reference_nll.mean()),
        log_ratio=float((nll - reference_nll).mean()),
        log_ratio_std_error=_std_error(nll - reference_nll),
        kl_mean=float(kl.mean()),
        kl_std_error=_std_error(kl),
        kl_median=float(np.median(kl)),
        kl_p90=p90,
        kl_p95=p95,
        kl_p99=p99,
        kl_p999=p999,
        kl_max=float(kl.max()),
        delta_p_mean=float(delta_p.mean()),
        delta_p_rms=math.sqrt(float(np.square(delta_p).mean())),
        same_top=same,
        same_top_std_error=math.sqrt(same * (1 - same) / (len(kl) - 1)),
    )


class _Chunks:
    """The token ids of a text in pieces of `ctx`."""

    def __init__(self, session: "Session", text: str, ctx: int, max_chunks: int | None) -> None:
        if ctx < MIN_CTX:
            raise InputError(f"ctx: found {ctx}, expected at least {MIN_CTX} tokens per chunk")
        if max_chunks is not None and max_chunks < 1:
            raise InputError(f"max_chunks: found {max_chunks}, expected 1 or more, or None for the whole text")
        _check_room(session, ctx)
        self.ctx = ctx
        tokenizer = session.tokenizer
        self._begin = [tokenizer.bos_id] if tokenizer.add_bos and tokenizer.bos_id is not None else []
        self._ids: Sequence[int] = [
            *self._begin,
            *tokenizer.encode(text.removesuffix("\n"), add_special=False, parse_special=False),
        ]
        self.n_tokens = len(self._ids)
        if self.n_tokens < 2 * ctx:
            raise InputError(
                f"the text has {self.n_tokens} tokens, expected at least {2 * ctx}, twice the {ctx} of a chunk; "
                "give a longer text or a smaller ctx"
            )
        self._n_chunks = min(self.n_tokens // ctx, max_chunks or self.n_tokens)

    def __len__(self) -> int:
        return self._n_chunks

    def __iter__(self) -> Iterator[list[int]]:
        for i in range(self._n_chunks):
            chunk = self._ids[i * self.ctx : (i + 1) * self.ctx]
            yield [*self._begin, *chunk[len(self._begin) :]]


def _check_room(session: "Session", ctx: int) -> None:
    if ctx > session.n_ctx:
        raise InputError(
            f"{session.path}: the session's context holds {session.n_ctx} tokens, expected the {ctx} of a chunk; open it with n_ctx={ctx}"
        )


def _check_same_vocabulary(session: "Session", reference: "Session") -> None:
    ours, theirs = session.tokenizer.vocabulary.tokens, reference.tokenizer.vocabulary.tokens
    if ours == theirs and session.n_vocab == reference.n_vocab:
        return
    where = f"{session.path} and its reference {reference.path}"
    if len(ours) != len(theirs) or session.n_vocab != reference.n_vocab:
        raise InputError(
            f"{where}: the vocabularies have {session.n_vocab} and {reference.n_vocab} tokens; "
            "only models with the same vocabulary can be compared"
        )
    first = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
    raise InputError(
        f"{where}: token {first} is {ours[first]!r} in one and {theirs[first]!r} in the other; "
        "only models with the same vocabulary can be compared"
    )


def _exp(mean_nll: "float | np.floating") -> float:
    """A model may find a text all but impossible; its perplexity is then infinite, not an error."""
    try:
        return math.exp(mean_nll)
    except OverflowError:
        return math.inf


def _std_error(values: "Values") -> float:
    return math.sqrt(float(values.var()) / (len(values) - 1))


def _perplexity_of(chunks: _Chunks, nll: "Values") -> Perplexity:
    value = _exp(nll.mean())
    return Perplexity(value, value * _std_error(nll), len(nll), len(chunks), chunks.ctx, chunks.n_tokens)
