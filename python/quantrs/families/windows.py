"""Sliding windows: which blocks see how far back, in ``config.json`` and in GGUF keys.

An architecture implies a pattern. Where a model has another one, or a window at all where the reference converter knows of none, the
usual keys say so; llama.cpp does not read them for every architecture.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from quantrs.families.checkpoint_format import Computed, Entry

if TYPE_CHECKING:
    from quantrs.families.source import Source
    from quantrs.huggingface.config import Config

__all__ = ["every_nth_sees_all", "late_blocks_with_window", "layer_types"]

WINDOW = "attention.sliding_window"
PATTERN = "attention.sliding_window_pattern"

_SLIDING, _FULL = "sliding_attention", "full_attention"
_MAX_BLOCKS = 100_000


def layer_types(config: "Config") -> list[bool] | None:
    """Whether each block has a window, if the file lists it."""
    types = config.items("layer_types", n_items=config.integer("num_hidden_layers", at_most=_MAX_BLOCKS))
    if types is None:
        return None
    if any(kind not in (_SLIDING, _FULL) for kind in types):
        raise config.wrong("layer_types", types, f"a list of {_SLIDING!r} and {_FULL!r}")
    return [kind == _SLIDING for kind in types]


def _types_of(pattern: list[bool]) -> list[str]:
    return [_SLIDING if sliding else _FULL for sliding in pattern]


def _pattern_of(model: "Source", period: int) -> list[bool]:
    pattern = model.value(PATTERN)
    if isinstance(pattern, list) and len(pattern) >= model.n_blocks:
        return [bool(item) for item in pattern[: model.n_blocks]]
    period = model.integer(PATTERN, period, at_least=0)
    return [period == 0 or i % period < period - 1 for i in range(model.n_blocks)]


def every_nth_sees_all(
    period: int, default_window: int | None, *, always_listed: bool = False, window_if: "Callable[[Config], bool]" = lambda _config: True
) -> Computed:
    """The rows of a family in which every `period`-th block has no window.

    Parameters
    ----------
    period : int
        What the architecture implies; ``sliding_window_pattern`` or ``layer_types`` may say otherwise.
    default_window : int or None
        Tokens, where ``sliding_window`` says nothing.
    always_listed : bool
        Write the pattern even where it is the implied one, as the reference converter does for some.
    window_if : callable
        Whether the model has windows.
    """

    def to_gguf(config: "Config") -> list[Entry]:
        if not window_if(config):
            return []
        n_blocks = config.integer("num_hidden_layers", at_most=_MAX_BLOCKS)
        stated = config.integer("sliding_window_pattern", "_sliding_window_pattern", default=period)
        implied = [(i + 1) % period != 0 for i in range(n_blocks)]
        pattern = layer_types(config) or [(i + 1) % stated != 0 for i in range(n_blocks)]
        if not any(pattern):
            return []
        entries: list[Entry] = [(WINDOW, config.integer("sliding_window", default=default_window), "u32")]
        if always_listed or (pattern != implied and layer_types(config) is not None):
            entries.append((PATTERN, pattern, "array[bool]"))
        elif pattern != implied:
            entries.append((PATTERN, stated, "u32"))
        return entries

    def to_config(model: "Source") -> dict[str, object]:
        window = model.integer(WINDOW, default_window or 0, at_least=0)
        if not window or (model.value(WINDOW) is None and always_listed):
            return {}
        pattern = _pattern_of(model, period)
        stated = model.value(PATTERN)
        shown = {"sliding_window_pattern": stated if isinstance(stated, int) else period} if not isinstance(stated, list) else {}
        return {"sliding_window": window, "layer_types": _types_of(pattern), **shown}

    return Computed(to_gguf, to_config)


def _late_to_gguf(config: "Config") -> list[Entry]:
    if not config.flag("use_sliding_window") or config.get("sliding_window") is None:
        return []
    n_blocks = config.integer("num_hidden_layers", at_most=_MAX_BLOCKS)
    first = config.integer("max_window_layers", default=28, at_least=0)
    pattern = layer_types(config) or [i >= first for i in range(n_blocks)]
    if not any(pattern):
        return []
    return [(WINDOW, config.integer("sliding_window"), "u32"), (PATTERN, pattern, "array[bool]")]


def _late_to_config(model: "Source") -> dict[str, object]:
    if model.value(WINDOW) is None:
        return {"use_sliding_window": False}
    pattern = _pattern_of(model, 1)
    first = pattern.index(True) if True in pattern else model.n_blocks
    window: dict[str, object] = {"use_sliding_window": True, "sliding_window": model.integer(WINDOW), "max_window_layers": first}
    return window if all(pattern[first:]) else {**window, "layer_types": _types_of(pattern)}


late_blocks_with_window = Computed(_late_to_gguf, _late_to_config)
"""Qwen's: off unless switched on, then in the blocks from ``max_window_layers``."""
