"""Sizes for people."""

from quantrs.sizing import ModelSizes, ParameterSizes
from quantrs.text import human_bytes, printable, table

__all__ = ["size_text"]


def size_text(sizes: ParameterSizes | ModelSizes) -> str:
    """Tables of what `quantrs.sizing.size` found."""
    return _of_parameters(sizes) if isinstance(sizes, ParameterSizes) else _of_model(sizes)


def _of_parameters(sizes: ParameterSizes) -> str:
    bits = table(["bits", "GB"], [[str(row.bits), f"{row.weights_gb:.4g}"] for row in sizes.bits], right="01")
    types = table(
        ["type", "bits per weight", "GB", ""],
        [
            [row.name, f"{row.bits_per_weight:.4g}", f"{row.weights_gb:.4g}", "" if row.can_write else "not written by quantrs"]
            for row in sizes.types
        ],
        right="12",
    )
    return f"{sizes.n_parameters:,} weights\n\n{bits}\n\n{types}"


def _of_model(sizes: ModelSizes) -> str:
    rows = [
        [
            row.name,
            "-" if row.weights_bytes is None else str(row.weights_bytes),
            "-" if row.weights_bytes is None else human_bytes(row.weights_bytes),
            "-" if row.bits_per_weight is None else f"{row.bits_per_weight:.3f}",
            row.note or ("" if row.can_write else "not written by quantrs"),
        ]
        for row in sizes.types
    ]
    head = f"{printable(sizes.path)}: {sizes.n_parameters:,} weights, {human_bytes(sizes.source_bytes)}"
    return f"{head}\n\n" + table(["type", "file bytes", "", "bits per weight", ""], rows, right="123")
