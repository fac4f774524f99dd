"""Sampling: what each filter keeps, and that a seed decides the draws."""

from __future__ import annotations

import numpy as np
import pytest

from quantrs.errors import InputError, UsageError
from quantrs.sampling import Sampler, SamplingOptions

OFF = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "temperature": 1.0}
CHANCES = np.array([0.1, 0.4, 0.05, 0.3, 0.15])


def drawn(n: int = 400, **options: object) -> set[int]:
    sampler = Sampler(SamplingOptions(**{**OFF, "seed": 1, **options}))  # type: ignore[arg-type]
    return {sampler.choose(np.log(CHANCES).astype(np.float32)) for _ in range(n)}


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, {0, 1, 2, 3, 4}),
        ({"top_k": 2}, {1, 3}),
        ({"top_p": 0.6}, {1, 3}),
        ({"top_p": 0.0}, {1}),
        ({"min_p": 0.3}, {1, 3, 4}),
        ({"typical_p": 0.2}, {3}),
        ({"temperature": 0.01}, {1}),
        ({"temperature": 0}, {1}),
    ],
)
def test_a_filter_keeps_these_tokens(options: dict[str, float], kept: set[int]) -> None:
    assert drawn(**options) == kept


@pytest.mark.parametrize("scale", [0.5, 3.0, 20.0])
@pytest.mark.parametrize(
    "options",
    [{"top_k": 7}, {"top_k": 900}, {"top_p": 0.5}, {"top_p": 0.95}, {"top_p": 0.9999}, {"min_p": 0.3}, {"top_k": 50, "top_p": 0.8}],
)
def test_filters_of_a_large_vocabulary_keep_what_their_definition_says(options: dict[str, float], scale: float) -> None:
    """Against sorting everything. With an infinite temperature all that was kept is drawn equally often."""
    logits = (np.random.default_rng(2).standard_normal(5000) * scale).astype(np.float32)
    logits[[7, 4000]] = logits.max() - np.float32(0.25)  # a tie
    order = np.argsort(-logits, kind="stable")
    chances = np.exp(logits[order].astype(np.float64) - logits.max())
    if "top_k" in options:
        order, chances = order[: int(options["top_k"])], chances[: int(options["top_k"])]
    if "top_p" in options:
        n_top = int(np.searchsorted(np.cumsum(chances), options["top_p"] * chances.sum())) + 1
        order, chances = order[:n_top], chances[:n_top]
    order = order[chances >= options.get("min_p", 0) * chances[0]]
    sampler = Sampler(SamplingOptions(**{**OFF, "seed": 1, **options, "temperature": 1e9}))  # type: ignore[arg-type]
    found = {sampler.choose(logits) for _ in range(300)}
    assert found <= set(order.tolist())
    assert len(found) > 0.6 * min(len(order), 300) - 1


def test_draws_have_the_frequencies_of_the_softmax() -> None:
    sampler = Sampler(SamplingOptions(**OFF, seed=3))
    found = np.bincount([sampler.choose(np.log(CHANCES).astype(np.float32)) for _ in range(4000)], minlength=5) / 4000
    assert np.abs(found - CHANCES).max() < 0.03


def test_a_seed_decides_the_draws() -> None:
    logits = np.zeros(1000, np.float32)
    runs = [[sampler.choose(logits) for _ in range(8)] for sampler in (Sampler(SamplingOptions(seed=seed)) for seed in (5, 5, 6))]
    assert runs[0] == runs[1] != runs[2]


def test_of_equal_logits_greedy_takes_the_first() -> None:
    assert Sampler(SamplingOptions(temperature=0)).choose(np.array([0, 2, 2], np.float32)) == 1


@pytest.mark.parametrize("penalty", [{"repeat_penalty": 2.0}, {"presence_penalty": 1.5}, {"frequency_penalty": 1.5}])
def test_penalties_make_a_recent_token_less_likely(penalty: dict[str, float]) -> None:
    assert Sampler(SamplingOptions(temperature=0, **penalty), recent=[1, 1]).choose(np.array([1.1, 2.0], np.float32)) == 0


def test_banned_tokens_are_never_chosen() -> None:
    assert Sampler(SamplingOptions(temperature=0), banned=[1]).choose(np.array([0.0, 5.0], np.float32)) == 0


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(InputError, match="weights are damaged"):
        Sampler(SamplingOptions()).choose(np.array([0.0, np.nan], np.float32))


@pytest.mark.parametrize(
    "options", [{"temperature": -1}, {"top_p": 2}, {"top_k": -1}, {"repeat_penalty": 0}, {"seed": -1}, {"temperature": float("nan")}]
)
def test_senseless_options_are_refused_by_name(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        SamplingOptions(**options)  # type: ignore[arg-type]
