"""Rotary embeddings scaled for long contexts: ``rope_scaling`` of ``config.json`` and the keys and tensors of GGUF, both ways.

Llama 3's scaling has no keys: converters write the divisor of each frequency as a tensor, from which the parameters are found again.
"""

import math
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

from quantrs.families.checkpoint_format import Computed, Entry, shortest_float32

if TYPE_CHECKING:
    from quantrs.families.source import Source
    from quantrs.huggingface.config import Config

__all__ = [
    "ROPE_FACTORS_LONG",
    "ROPE_FACTORS_SHORT",
    "ROPE_FREQS",
    "ROPE_SCALING",
    "factor_tensors",
    "freq_base",
    "llama3_factors",
    "llama3_parameters",
    "rope_config",
]

ROPE_FREQS = "rope_freqs.weight"
ROPE_FACTORS_LONG = "rope_factors_long.weight"
ROPE_FACTORS_SHORT = "rope_factors_short.weight"

_YARN_EXTRAS = (
    ("extrapolation_factor", "rope.scaling.yarn_ext_factor"),
    ("attention_factor", "rope.scaling.yarn_attn_factor"),
    ("beta_fast", "rope.scaling.yarn_beta_fast"),
    ("beta_slow", "rope.scaling.yarn_beta_slow"),
)


def rope_config(config: "Config") -> "Config | None":
    """``rope_scaling``, or ``rope_parameters`` as newer files call it; of its kinds of layers the one that sees everything."""
    scaling = config.part("rope_parameters") or config.part("rope_scaling")
    full = scaling.part("full_attention") if scaling else None
    return full or scaling


def _kind(scaling: "Config | None") -> str:
    kind = scaling.text("rope_type", "type", default="default").lower() if scaling else "default"
    return "longrope" if kind == "su" else kind


def _to_gguf(config: "Config") -> list[Entry]:
    scaling = rope_config(config)
    kind = _kind(scaling)
    # "dynamic" changes nothing within the context that the model was made for.
    if scaling is None or kind in ("default", "llama3", "dynamic"):
        return []
    if kind == "longrope":
        return [("rope.scaling.type", "longrope", "string")]
    if kind not in ("linear", "yarn"):
        raise config.unsupported(f"'rope_scaling' of the type {kind!r}")
    entries: list[Entry] = [("rope.scaling.type", kind, "string"), ("rope.scaling.factor", scaling.number("factor", at_least=1e-6), "f32")]
    if kind == "yarn":
        original = scaling.integer("original_max_position_embeddings", default=config.integer("max_position_embeddings"))
        entries.append(("rope.scaling.original_context_length", original, "u32"))
        for name, key in _YARN_EXTRAS:
            value = scaling.optional_number(name)
            if value is not None:
                entries.append((key, value, "f32"))
    return entries


def _to_config(model: "Source") -> dict[str, object]:
    factors = model.factors(ROPE_FREQS)
    if factors is not None:
        try:
            return {"rope_scaling": llama3_parameters(factors, model.number("rope.freq_base", 10_000.0), model.n_ctx_train)}
        except ValueError as error:
            raise model.unsupported(f"a {ROPE_FREQS} that no 'rope_scaling' describes ({error})") from error
    kind = model.text("rope.scaling.type", "none")
    if kind == "longrope":
        long, short = model.factors(ROPE_FACTORS_LONG), model.factors(ROPE_FACTORS_SHORT)
        if long is None or short is None:
            return {}
        return {"rope_scaling": {"type": "longrope", "long_factor": _shortest(long), "short_factor": _shortest(short)}}
    factor = model.number("rope.scaling.factor", model.number("rope.scale_linear", 1.0)) or 1.0
    if kind == "yarn":
        scaling: dict[str, object] = {"rope_type": "yarn", "factor": shortest_float32(factor)}
        scaling["original_max_position_embeddings"] = model.integer("rope.scaling.original_context_length", model.n_ctx_train)
        extras = {name: model.value(key) for name, key in _YARN_EXTRAS}
        return {"rope_scaling": scaling | {name: shortest_float32(v) for name, v in extras.items() if isinstance(v, float)}}
    if kind in ("none", "linear"):
        return {"rope_scaling": {"rope_type": "linear", "factor": shortest_float32(factor)}} if factor != 1.0 else {}
    raise model.unsupported(f"rope.scaling.type {kind!r}")


ROPE_SCALING = Computed(_to_gguf, _to_config)
"""The row for a family's keys."""


def factor_tensors(config: "Config", n_dims: int) -> "list[tuple[str, list[float]]]":
    """Tensors of float32 that the scaling asks for, by name; `n_dims` values of each head are rotated."""
    scaling = rope_config(config)
    kind = _kind(scaling)
    if scaling is None or kind not in ("llama3", "longrope"):
        return []
    if kind == "llama3":
        base = config.number("rope_theta", default=scaling.number("rope_theta", default=10_000.0), at_least=1e-6)
        parameters = (
            scaling.number("factor", default=8.0, at_least=1e-6),
            scaling.number("low_freq_factor", default=1.0, at_least=1e-6),
            scaling.number("high_freq_factor", default=4.0, at_least=1e-6),
            scaling.integer("original_max_position_embeddings", default=8192),
        )
        if parameters[2] <= parameters[1]:
            raise scaling.wrong("high_freq_factor", parameters[2], f"more than low_freq_factor, {parameters[1]:g}")
        return [(ROPE_FREQS, llama3_factors(n_dims, base, *parameters))]
    tensors = []
    for tensor, key in ((ROPE_FACTORS_LONG, "long_factor"), (ROPE_FACTORS_SHORT, "short_factor")):
        factors = scaling.numbers(key)
        if factors is None or len(factors) != n_dims // 2:
            found = None if factors is None else f"a list of {len(factors)}"
            raise scaling.wrong(key, found, f"one number for each of {n_dims // 2} frequencies")
        tensors.append((tensor, factors))
    return tensors


def llama3_factors(n_dims: int, base: float, factor: float, low: float, high: float, original: int) -> list[float]:
    """What each frequency is divided by: 1 for short wavelengths, `factor` for long ones, smoothly between.

    Every step is rounded to float32, and a quotient by a tensor is a product with its reciprocal, as torch computes it; the algorithm
    is that of transformers' ``_compute_llama3_parameters``.
    """
    long_wave, short_wave = original / low, original / high
    factors = []
    for i in range(0, n_dims, 2):
        frequency = _f32(1.0 / _f32(_f32(base) ** _f32(i / n_dims)))
        wave = _f32(_f32(1.0 / frequency) * _f32(2 * math.pi))
        if wave < short_wave:
            factors.append(1.0)
        elif wave > long_wave:
            factors.append(factor)
        else:
            smooth = _f32(_f32(_f32(_f32(1.0 / wave) * original) - low) / _f32(high - low))
            factors.append(_f32(1.0 / _f32(_f32(_f32(1.0 - smooth) / _f32(factor)) + smooth)))
    return factors


def llama3_parameters(factors: Sequence[float], base: float, n_ctx_train: int) -> dict[str, object]:
    """``rope_scaling`` that gives these divisors.

    The values that models are published with are tried first. Else the divisors between 1 and the largest determine the line
    ``smooth = original / wavelength / (high - low) - low / (high - low)``, and ``original`` is chosen so that the low factor is 1.

    Raises
    ------
    ValueError
        No parameters of this kind give these divisors.
    """
    n_dims = 2 * len(factors)
    factor = shortest_float32(max(factors))
    waves = [2 * math.pi * base ** (2 * i / n_dims) for i in range(len(factors))]
    candidates = [(1.0, 4.0, original) for original in (8192, n_ctx_train, *(2**k for k in range(5, 21)))]
    candidates.extend(_fitted(factors, waves, factor))
    for low, high, original in candidates:
        if all(_close(a, b) for a, b in zip(llama3_factors(n_dims, base, factor, low, high, original), factors, strict=True)):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low,
                "high_freq_factor": high,
                "original_max_position_embeddings": original,
            }
    raise ValueError("no Llama 3 scaling gives these divisors of the frequencies")


def _fitted(factors: Sequence[float], waves: Sequence[float], factor: float) -> list[tuple[float, float, int]]:
    """(low, high, original) from the first and last divisor between the extremes: 1/f = (1 - s)/factor + s, s linear in 1/wave."""
    between = [(1 / wave, f) for f, wave in zip(factors, waves, strict=True) if 1.0 < f < max(factors)]
    if len(between) < 2 or factor <= 1.0:
        return []
    points = [(inverse, (1 / f - 1 / factor) / (1 - 1 / factor)) for inverse, f in between]
    (x0, s0), (x1, s1) = points[0], points[-1]
    slope = (s1 - s0) / (x1 - x0)
    if slope <= 0:
        return []
    # smooth = (original / wave - low) / (high - low): only the ratios to low are determined.
    width = 1 / slope
    low_ratio = (x0 * slope - s0) * width  # low / original
    if low_ratio <= 0:
        return []
    ratio = (low_ratio + width) / low_ratio
    original = round(1 / low_ratio)
    return [(1.0, round(ratio, 3), original), (1.0, ratio, original)] if original >= 1 else []


def _close(a: float, b: float) -> bool:
    return abs(a - b) <= 2e-5 * abs(b)


def _f32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def _shortest(values: Sequence[float]) -> list[float]:
    return [shortest_float32(value) for value in values]


def freq_base(default: float | None = None, *names: str) -> Computed:
    """The row for ``rope.freq_base``: ``rope_theta``, which newer files keep inside ``rope_parameters``."""

    def to_gguf(config: "Config") -> list[Entry]:
        scaling = rope_config(config)
        inside = scaling.optional_number("rope_theta") if scaling else None
        value = config.optional_number("rope_theta", *names)
        value = value if value is not None else inside if inside is not None else default
        return [] if value is None else [("rope.freq_base", value, "f32")]

    def to_config(model: "Source") -> dict[str, object]:
        # A GGUF file that does not say means 10000, whatever transformers would take for the family.
        return {"rope_theta": shortest_float32(model.number("rope.freq_base", 10_000.0))}

    return Computed(to_gguf, to_config)
