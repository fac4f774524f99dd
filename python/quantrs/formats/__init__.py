"""Checkpoint folders with quantized layers: one file per format, both directions.

To add one: a file here with its `CheckpointFormat`, and a row in `FORMATS`.
"""

from typing import TYPE_CHECKING

from quantrs.errors import InputError
from quantrs.formats.awq import AWQ
from quantrs.formats.compressed_tensors import COMPRESSED_TENSORS
from quantrs.formats.gptq import GPTQ
from quantrs.formats.layer import CheckpointFormat, QuantizedFolder, QuantizedLayer
from quantrs.huggingface.config import Config

if TYPE_CHECKING:
    from quantrs.huggingface.folder import Folder

__all__ = ["FORMATS", "CheckpointFormat", "QuantizedFolder", "QuantizedLayer", "find_quantized"]

FORMATS = {format_.method: format_ for format_ in (AWQ, COMPRESSED_TENSORS, GPTQ)}
"""By ``quant_method``."""

_BESIDE = {"quantize_config.json": "gptq", "quant_config.json": "awq"}
"""Where old tools put what is now in ``config.json``, and the method that the file speaks of."""

_IN_CONFIG = ("quantization_config", "compression_config")


def find_quantized(folder: "Folder") -> QuantizedFolder | None:
    """The quantized layers of a folder; None if it has none.

    Raises
    ------
    FileError
        A file beside ``config.json`` cannot be read.
    FormatError
        A value or a tensor is missing or does not fit the others.
    InputError
        The method, or its layout, cannot be read.
    """
    config, method = _settings(folder)
    if config is None:
        return None
    if method not in FORMATS:
        raise InputError(
            f"{config.path}: the weights are quantized already (quant_method {method!r}), which cannot be read; "
            f"expected one of {', '.join(FORMATS)}, or the original checkpoint"
        )
    return FORMATS[method].find_layers(config, folder)


def _settings(folder: "Folder") -> tuple[Config | None, str]:
    for key in _IN_CONFIG if folder.settings else ():
        config = None if folder.settings is None else folder.settings.part(key)
        if config is not None:
            return config, config.text("quant_method", default="unknown")
    for file, method in _BESIDE.items():
        path = folder.path / file
        if path.is_file():
            config = Config.read(path)
            return config, config.text("quant_method", default=method)
    return None, ""
