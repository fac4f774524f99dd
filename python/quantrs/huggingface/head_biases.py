"""Biases of queries and keys, put in another order of rows at once: they are small, and an assembly orders rows of matrices only."""

from typing import TYPE_CHECKING

from quantrs import _native

if TYPE_CHECKING:
    from quantrs.huggingface.folder import Memory

__all__ = ["ordered_bias"]


def ordered_bias(sources: "list[str | Memory]", label: str, raw: bytes, stored: str, *, n_heads: int, to_pairs: bool) -> "_native.Part":
    """Add a source with the values in the other order, and describe it.

    Parameters
    ----------
    sources
        Those of the assembly; one is appended.
    label
        What to call it.
    raw
        The values, of the type `stored`, whole heads of even length.
    n_heads, to_pairs
        As `_native.Part` means ``halves_to_pairs`` (`to_pairs`) and ``pairs_to_halves``.
    """
    import numpy as np

    values = np.frombuffer(raw, np.uint8)
    n_values = len(values) // _VALUE_BYTES[stored]
    halves, pairs = (n_heads, 2, n_values // n_heads // 2, -1), (n_heads, n_values // n_heads // 2, 2, -1)
    ordered = values.reshape(halves if to_pairs else pairs).swapaxes(1, 2)
    sources.append((label, np.ascontiguousarray(ordered).reshape(-1)))
    return _native.Part(len(sources) - 1, 0, stored, 1)


_VALUE_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1}
