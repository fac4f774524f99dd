"""Quantize language models on any CPU: NumPy arrays, and GGUF files byte for byte as ``llama-quantize`` writes them.

Nothing heavy is imported before it is used: ``import quantrs`` alone loads neither NumPy nor the command line.

Examples
--------
>>> import numpy as np
>>> import quantrs as qr
>>> w = np.linspace(-1, 1, 512, dtype=np.float32).reshape(2, 256)
>>> q = qr.quantize(w, "q4_k")
>>> q
QuantizedArray(type='q4_k', shape=(2, 256), nbytes=288, bits_per_weight=4.5)
>>> q.dequantize().shape
(2, 256)
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantrs._native import __version__
    from quantrs.arrays import ArrayError, QuantizedArray, matmul_i8, quantize
    from quantrs.awq import AwqScales, awq_clip, awq_search, clamp_groups
    from quantrs.block_types import BlockType, types
    from quantrs.calibration.imatrix import make_imatrix
    from quantrs.calibration.options import CalibrationOptions
    from quantrs.checkpoint import Checkpoint, Tensor, open
    from quantrs.conversion import convert
    from quantrs.engine import Session
    from quantrs.errors import (
        Cancelled,
        FileError,
        FormatError,
        InputError,
        QuantrsError,
        QuantrsWarning,
        UsageError,
    )
    from quantrs.gptq_solver import GptqQuantized, gptq
    from quantrs.group_quantized import GroupQuantized, quantize_groups
    from quantrs.hessian import Hessian
    from quantrs.huggingface.export import export_gguf
    from quantrs.pipeline import quantize_checkpoint
    from quantrs.report import Report
    from quantrs.smoothquant import SmoothScales, smooth_scales, smooth_search

__all__ = [
    "ArrayError",
    "AwqScales",
    "BlockType",
    "CalibrationOptions",
    "Cancelled",
    "Checkpoint",
    "FileError",
    "FormatError",
    "GptqQuantized",
    "GroupQuantized",
    "Hessian",
    "InputError",
    "QuantizedArray",
    "QuantrsError",
    "QuantrsWarning",
    "Report",
    "Session",
    "SmoothScales",
    "Tensor",
    "UsageError",
    "__version__",
    "awq_clip",
    "awq_search",
    "clamp_groups",
    "convert",
    "export_gguf",
    "gptq",
    "make_imatrix",
    "matmul_i8",
    "open",
    "quantize",
    "quantize_checkpoint",
    "quantize_groups",
    "smooth_scales",
    "smooth_search",
    "types",
]

_HOMES = {
    "ArrayError": "arrays",
    "AwqScales": "awq",
    "BlockType": "block_types",
    "CalibrationOptions": "calibration.options",
    "Cancelled": "errors",
    "Checkpoint": "checkpoint",
    "FileError": "errors",
    "FormatError": "errors",
    "GptqQuantized": "gptq_solver",
    "GroupQuantized": "group_quantized",
    "Hessian": "hessian",
    "InputError": "errors",
    "QuantizedArray": "arrays",
    "QuantrsError": "errors",
    "QuantrsWarning": "errors",
    "Report": "report",
    "Session": "engine",
    "SmoothScales": "smoothquant",
    "Tensor": "checkpoint",
    "UsageError": "errors",
    "__version__": "_native",
    "awq_clip": "awq",
    "awq_search": "awq",
    "clamp_groups": "awq",
    "convert": "conversion",
    "export_gguf": "huggingface.export",
    "gptq": "gptq_solver",
    "make_imatrix": "calibration.imatrix",
    "matmul_i8": "arrays",
    "open": "checkpoint",
    "quantize": "arrays",
    "quantize_checkpoint": "pipeline",
    "quantize_groups": "group_quantized",
    "smooth_scales": "smoothquant",
    "smooth_search": "smoothquant",
    "types": "block_types",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'quantrs' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"quantrs.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
