"""The names of what a model can be quantized to: file types, and the tensor types they are mixed from.

A *file type* (``Q4_K_M``) is what a user asks for and what ``general.file_type`` records. It has a default *tensor type*
(``Q4_K``), which `quantrs.mixes` replaces for some tensors. Tensor types are the rows of the Rust registry.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from quantrs import _native
from quantrs.errors import InputError, UsageError

if TYPE_CHECKING:
    from quantrs._native import BlockFormat

__all__ = [
    "ALIASES",
    "FILE_TYPES",
    "FLOATS",
    "FileType",
    "file_type",
    "is_quantized",
    "row_bytes",
    "tensor_type",
    "tensor_types",
    "writable",
]


@dataclass(frozen=True)
class FileType:
    """One row of `FILE_TYPES`."""

    name: str
    id: int | None
    """Value of ``general.file_type``; None for COPY, which keeps the source's."""
    default_type: str | None
    """Tensor type of every tensor that no rule speaks of; None for COPY."""

    @property
    def is_quantized(self) -> bool:
        """Not COPY, F32, F16 or BF16: the mix rules apply."""
        return self.default_type is not None and is_quantized(self.default_type)


# The default types of IQ2_S and IQ2_M are one step below their names, as upstream has them.
FILE_TYPES: tuple[FileType, ...] = (
    FileType("F32", 0, "F32"),
    FileType("F16", 1, "F16"),
    FileType("Q4_0", 2, "Q4_0"),
    FileType("Q4_1", 3, "Q4_1"),
    FileType("Q8_0", 7, "Q8_0"),
    FileType("Q5_0", 8, "Q5_0"),
    FileType("Q5_1", 9, "Q5_1"),
    FileType("Q2_K", 10, "Q2_K"),
    FileType("Q3_K_S", 11, "Q3_K"),
    FileType("Q3_K_M", 12, "Q3_K"),
    FileType("Q3_K_L", 13, "Q3_K"),
    FileType("Q4_K_S", 14, "Q4_K"),
    FileType("Q4_K_M", 15, "Q4_K"),
    FileType("Q5_K_S", 16, "Q5_K"),
    FileType("Q5_K_M", 17, "Q5_K"),
    FileType("Q6_K", 18, "Q6_K"),
    FileType("IQ2_XXS", 19, "IQ2_XXS"),
    FileType("IQ2_XS", 20, "IQ2_XS"),
    FileType("Q2_K_S", 21, "Q2_K"),
    FileType("IQ3_XS", 22, "IQ3_S"),
    FileType("IQ3_XXS", 23, "IQ3_XXS"),
    FileType("IQ1_S", 24, "IQ1_S"),
    FileType("IQ4_NL", 25, "IQ4_NL"),
    FileType("IQ3_S", 26, "IQ3_S"),
    FileType("IQ3_M", 27, "IQ3_S"),
    FileType("IQ2_S", 28, "IQ2_XS"),
    FileType("IQ2_M", 29, "IQ2_S"),
    FileType("IQ4_XS", 30, "IQ4_XS"),
    FileType("IQ1_M", 31, "IQ1_M"),
    FileType("BF16", 32, "BF16"),
    FileType("TQ1_0", 36, "TQ1_0"),
    FileType("TQ2_0", 37, "TQ2_0"),
    FileType("MXFP4_MOE", 38, "MXFP4"),
    FileType("Q1_0", 40, "Q1_0"),
    FileType("Q2_0", 41, "Q2_0"),
    FileType("COPY", None, None),
)

ALIASES: dict[str, str] = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}

_BY_NAME = {row.name: row for row in FILE_TYPES}
_BY_ID = {row.id: row for row in FILE_TYPES if row.id is not None}
FLOATS = ("F32", "F16", "BF16")
"""Types that hold a model's weights unquantized."""
_UNQUANTIZED = frozenset({"F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64"})
_ACTIVATIONS_ONLY = frozenset({"Q8_1", "Q8_K"})  # made while computing; no model file holds them


def file_type(text: str) -> FileType:
    """The file type that a user means: a name or alias in any letter case, or a numeric id.

    Raises
    ------
    UsageError
        There is none.

    Examples
    --------
    >>> file_type("q4_k").name, file_type("15").name, file_type("IQ2_S").default_type
    ('Q4_K_M', 'Q4_K_M', 'IQ2_XS')
    """
    name = text.strip().upper()
    row = _BY_NAME.get(ALIASES.get(name, name))
    if row is None and re.fullmatch(r"[0-9]{1,4}", name):
        row = _BY_ID.get(int(name))
    if row is None:
        known = ", ".join(row.name for row in FILE_TYPES)
        raise UsageError(
            f"unknown file type {text!r}; expected one of {known}; or, for a checkpoint folder, a name such as gptq-w4-g128 or awq-w4-g128"
        )
    return row


@cache
def tensor_types() -> dict[str, "BlockFormat"]:
    """Every tensor type by upper-case name."""
    return {row.name.upper(): row for row in _native.block_formats()}


def tensor_type(text: str, *, where: str) -> str:
    """The tensor type that a user means, in any letter case, spelled as upstream does; `where` names the option.

    Raises
    ------
    UsageError
        There is none, or no file can hold it as a quantization target.
    """
    row = tensor_types().get(text.strip().upper())
    if row is None or not _is_target(row.name):
        known = ", ".join(row.name for row in tensor_types().values() if _is_target(row.name))
        found = "unknown tensor type" if row is None else "not a type to quantize to:"
        raise UsageError(f"{where}: {found} {text!r}; expected one of {known}")
    return row.name


def is_quantized(type_name: str) -> bool:
    """Whether the type packs several values into a block with a scale."""
    return type_name not in _UNQUANTIZED


def writable(type_name: str) -> bool:
    """Whether quantrs can quantize to this tensor type; the IQ1, IQ2 and IQ3 types are known but not yet written."""
    return type_name == "F32" or (_is_target(type_name) and tensor_types()[type_name.upper()].can_quantize)


def row_bytes(type_name: str, n_cols: int) -> int:
    """Bytes of one packed row.

    Raises
    ------
    InputError
        `n_cols` is not a multiple of the type's block.
    """
    row = tensor_types()[type_name.upper()]
    n_blocks, rest = divmod(n_cols, row.block_len)
    if rest:
        raise InputError(f"rows of {n_cols} values are not a multiple of {row.block_len} ({type_name} block)")
    return n_blocks * row.block_bytes


def _is_target(type_name: str) -> bool:
    return type_name not in _ACTIVATIONS_ONLY and (is_quantized(type_name) or type_name in FLOATS)
