"""Sizes for people."""

from quantrs.sizing import FileTypeRow, ModelSizes, ParameterSizes
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
    budgets = [kind for kind in ("ram", "vram") if kind in sizes.types[0].fits or any(kind in row.fits for row in sizes.types)]
    rows = [
        [
            row.name,
            "-" if row.weights_bytes is None else str(row.weights_bytes),
            _bytes(row.weights_bytes),
            "-" if row.bits_per_weight is None else f"{row.bits_per_weight:.3f}",
            *([] if sizes.context is None else [_bytes(row.total_bytes)]),
            *("" if kind not in row.fits else "fits" if row.fits[kind] else "too large" for kind in budgets),
            _remark(row),
        ]
        for row in sizes.types
    ]
    head = f"{printable(sizes.path)}: {sizes.n_parameters:,} weights, {human_bytes(sizes.source_bytes)}"
    header = ["type", "file bytes", "", "bits per weight", *([] if sizes.context is None else ["running"]), *budgets, ""]
    parts = [head, *_of_context(sizes), table(header, rows, right="1234" if sizes.context is not None else "123")]
    if sizes.best:
        parts.append("\n".join(f"{name}: {'nothing fits' if best is None else f'best is {best}'}" for name, best in sizes.best.items()))
    return "\n\n".join(parts)


def _of_context(sizes: ModelSizes) -> list[str]:
    if sizes.context is None:
        return []
    per = f"{sizes.context} tokens" + (f" in each of {sizes.batch} sequences" if sizes.batch > 1 else "")
    trained = "" if sizes.trained_context is None else f" (the model was made for {sizes.trained_context})"
    cache = ", ".join(f"{row.name} {_bytes(row.bytes)}" for row in sizes.kv_cache)
    return [f"context: {per}{trained}\nkeys and values: {cache}; counted as {sizes.kv_type}"]


def _remark(row: FileTypeRow) -> str:
    """In a few words what the note says in full: a table has no room for names of tensors."""
    if row.weights_bytes is None:
        return row.note
    if not row.can_write:
        return "not written by quantrs"
    return "needs --imatrix" if "--imatrix" in row.note else row.note


def _bytes(n_bytes: int | None) -> str:
    return "-" if n_bytes is None else human_bytes(n_bytes)
