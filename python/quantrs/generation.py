"""Text that a model writes: the loop from a prompt to pieces of text, and where it ends."""

import time
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from quantrs.errors import InputError, UsageError
from quantrs.sampling import Sampler, SamplingOptions
from quantrs.stop_strings import StopStrings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from quantrs._native import Engine
    from quantrs.tokenization import Tokenizer

__all__ = ["Ending", "Generation"]

Ending = Literal["end", "stop", "length", "context"]
"""Why a text is over: the model ended it, a stop string came, the wanted number of tokens is there, the context is full."""

_BATCH = 512  # what the engine takes at once; between two of these a long prompt can be interrupted


class Generation(Iterator[str]):
    """A text on its way: an iterator of its pieces, which are whole characters and together the text.

    Nothing is computed before the first piece is asked for, and one may stop asking at any time. Each `Generation` knows its own
    tokens: several of one session may take turns, at the price of computing again what another one has put into the context.

    Attributes
    ----------
    prompt_ids, ids : list of int
        Tokens of the prompt, and those chosen so far; a token that ended the text is not among them.
    text : str
        All pieces so far.
    ending : {"end", "stop", "length", "context"} or None
        Why the text is over: the model ended it, a stop string came, `max_tokens` are there, the context is full. None before that.
    n_reused : int
        Tokens of the prompt that the context held already.
    n_steps : int
        Tokens that were computed one by one, after the prompt.
    prompt_seconds, seconds : float
        Time that the prompt took, and that everything after it took; waiting for the caller is not counted.
    """

    def __init__(
        self,
        engine: "Engine",
        tokenizer: "Tokenizer",
        prompt_ids: Sequence[int],
        *,
        max_tokens: int | None = None,
        stop: str | Collection[str] = (),
        ignore_eos: bool = False,
        reuse: bool = False,
        sampling: SamplingOptions | None = None,
    ) -> None:
        if max_tokens is not None and max_tokens < 0:
            raise UsageError(f"max_tokens: found {max_tokens}, expected 0 or more, or None for no limit")
        _check_prompt(prompt_ids, engine)
        self._engine = engine
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._stops = StopStrings(stop)
        self._ends = frozenset[int]() if ignore_eos else tokenizer.end_ids
        self._reuse = reuse
        self._sampler = Sampler(sampling or SamplingOptions(), recent=prompt_ids, banned=tokenizer.end_ids if ignore_eos else ())
        self.prompt_ids = list(prompt_ids)
        self.ids: list[int] = []
        self.text = ""
        self.ending: Ending | None = None
        self.n_reused = 0
        self.n_steps = 0
        self.prompt_seconds = 0.0
        self.seconds = 0.0
        self._pieces = self._run()

    def __next__(self) -> str:
        piece = next(self._pieces)
        self.text += piece
        return piece

    @property
    def prompt_rate(self) -> float:
        """Tokens per second of the part of the prompt that was computed; 0 before that."""
        return (len(self.prompt_ids) - self.n_reused) / self.prompt_seconds if self.prompt_seconds else 0.0

    @property
    def rate(self) -> float:
        """Tokens per second after the prompt; 0 when there were none."""
        return self.n_steps / self.seconds if self.n_steps else 0.0

    def _run(self) -> Iterator[str]:
        stream = self._tokenizer.stream()
        for token in self._tokens():
            piece = self._stops.push(stream.push(token))
            if piece:
                yield piece
            if self._stops.found is not None:
                self.ending = "stop"
                return
        rest = self._stops.push(stream.finish()) + self._stops.finish()
        if rest:
            yield rest

    def _tokens(self) -> Iterator[int]:
        """Choose tokens until there is a reason to end."""
        if self._max_tokens == 0:
            self.ending = "length"
            return
        logits = self._read_prompt()
        context = self.prompt_ids.copy()
        resumed = time.perf_counter()
        while True:
            # A vocabulary that is padded in the weights has logits of tokens that stand for nothing.
            token = self._sampler.choose(logits[: self._tokenizer.n_tokens])
            self.seconds += time.perf_counter() - resumed
            if token in self._ends:
                self.ending = "end"
                return
            self.ids.append(token)
            context.append(token)
            yield token
            if len(self.ids) == self._max_tokens:
                self.ending = "length"
                return
            if len(context) > self._engine.n_ctx:
                self.ending = "context"
                return
            resumed = time.perf_counter()
            logits = self._engine.next_logits(context)
            self.n_steps += 1

    def _read_prompt(self) -> "npt.NDArray[np.float32]":
        started = time.perf_counter()
        engine, ids = self._engine, self.prompt_ids
        if not self._reuse:
            engine.reset()
        self.n_reused = min(engine.n_shared(ids), len(ids) - 1)
        for end in range(self.n_reused + _BATCH, len(ids), _BATCH):
            engine.next_logits(ids[:end])
        logits = engine.next_logits(ids)
        self.prompt_seconds = time.perf_counter() - started
        return logits


def _check_prompt(ids: Sequence[int], engine: "Engine") -> None:
    if not ids:
        raise InputError("prompt: found no tokens, expected at least one; this model has no begin token to start from")
    if len(ids) > engine.n_ctx:
        raise InputError(
            f"prompt: found {len(ids)} tokens, but the context holds {engine.n_ctx}; shorten it, or make room with --ctx {len(ids) + 256}"
            f" (in Python n_ctx={len(ids) + 256})"
        )
    wrong = next((i for i in ids if not 0 <= i < engine.n_vocab), None)
    if wrong is not None:
        raise InputError(f"prompt: found the token {wrong}, expected 0 to {engine.n_vocab - 1}")
