"""Types of safetensors files, and the GGUF types that they are carried in."""

from quantrs.errors import InputError
from quantrs.huggingface.folder import HfTensor

__all__ = ["FLOAT_TYPES", "check_float"]

FLOAT_TYPES = {"F32": "F32", "F16": "F16", "BF16": "BF16", "F8_E4M3": "BF16", "F8_E5M2": "BF16"}
"""Every value of these can be told in the GGUF type: bfloat16 holds all of float8."""


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
