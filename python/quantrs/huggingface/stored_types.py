"""Types of safetensors files, and the GGUF types that they are carried in."""

from collections.abc import Mapping, Sequence

from quantrs.errors import InputError
from quantrs.huggingface.folder import HfTensor

__all__ = ["FLOAT_TYPES", "TORCH_TYPES", "carried_type", "check_float", "dtype_setting"]

FLOAT_TYPES = {"F32": "F32", "F16": "F16", "BF16": "BF16", "F8_E4M3": "BF16", "F8_E5M2": "BF16"}
"""Every value of these can be told in the GGUF type: bfloat16 holds all of float8."""
TORCH_TYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""What ``config.json`` calls the types that matrices are written in."""


def carried_type(tensors: Sequence[HfTensor]) -> str:
    """The GGUF type of matrices that become one: the smallest block type that holds all their values, where they are packed; else floats.

    They are of the same `dtype`, one of `FLOAT_TYPES`.
    """
    first, *rest = tensors
    if first.packed is not None:
        common = (name for name in first.packed.types if all(other.packed is not None and name in other.packed.types for other in rest))
        return next(common, "F32")
    return FLOAT_TYPES[first.dtype]


def dtype_setting(config: Mapping[str, object], dtype: str) -> dict[str, object]:
    """The type of the weights as ``config.json`` says it, under the name that this one has for it."""
    return {"dtype" if "dtype" in config else "torch_dtype": TORCH_TYPES[dtype]}


def check_float(tensor: HfTensor, where: str) -> None:
    """Refuse what has no values to quantize.

    Raises
    ------
    InputError
        The tensor is of whole numbers, packed, or float64.
    """
    if tensor.dtype not in FLOAT_TYPES:
        raise InputError(
            f"{where}: is of {tensor.dtype}, expected one of {', '.join(FLOAT_TYPES)}; save the checkpoint in float32 or bfloat16"
        )
