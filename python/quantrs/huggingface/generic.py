"""Any checkpoint as a GGUF file: tensors keep their names, no hyperparameters and no tokenizer are written."""

import math
from typing import TYPE_CHECKING

from quantrs import _native
from quantrs.errors import InputError
from quantrs.huggingface.folder import Folder
from quantrs.huggingface.general_keys import general_keys
from quantrs.huggingface.stored_types import FLOAT_TYPES, carried_type

if TYPE_CHECKING:
    from quantrs._native import Gguf

__all__ = ["SHAPE_KEY", "generic_assembly"]

SHAPE_KEY = "quantrs.original_shape."
"""And the tensor's name: its shape in the checkpoint, outermost axis first, where a GGUF file cannot have it."""

_INTEGER_TYPES = {"I8": "I8", "I16": "I16", "I32": "I32", "I64": "I64", "F64": "F64"}
_MAX_NAME_BYTES = 63
_MAX_AXES = 4


def generic_assembly(folder: Folder) -> "Gguf":
    """The folder's tensors under their own names.

    Raises
    ------
    InputError
        A name is too long for GGUF, or a type unknown to it.
    """
    tensors, shapes = [], []
    for tensor in folder.tensors.values():
        source = folder.sources[tensor.source]
        where = f"{source if isinstance(source, str) else source[0]}: {tensor.name}"
        if len(tensor.name.encode()) > _MAX_NAME_BYTES:
            raise InputError(f"{where}: the name has {len(tensor.name.encode())} bytes, GGUF holds {_MAX_NAME_BYTES}; rename the tensor")
        if 0 in tensor.shape:
            raise InputError(f"{where}: has the shape {tensor.shape}, GGUF holds no empty tensors; leave it out of the checkpoint")
        type_name = carried_type([tensor]) if tensor.dtype in FLOAT_TYPES else _INTEGER_TYPES.get(tensor.dtype)
        if type_name is None:
            known = ", ".join((*FLOAT_TYPES, *_INTEGER_TYPES))
            raise InputError(f"{where}: is of {tensor.dtype}, expected one of {known}; save it in another type")
        dims = _dims(tensor.shape)
        if len(dims) == 1 and tensor.dtype in FLOAT_TYPES:
            type_name = "F32"
        if tuple(reversed(tensor.shape)) != dims:
            shapes.append((f"{SHAPE_KEY}{tensor.name}", list(tensor.shape), "array[u64]"))
        tensors.append(_native.AssembledTensor(tensor.name, dims, type_name, [tensor.part(math.prod(dims[1:]))]))
    header = _native.GgufHeader.new()
    for key, value, value_type in general_keys(folder, "generic", {tensor.name: tensor.dims for tensor in tensors}):
        header.set(key, value, value_type)
    header.set("general.quantization_version", 2, "u32")
    for key, value, value_type in shapes:
        header.set(key, value, value_type)
    return _native.Gguf.assembled(header, list(folder.sources), tensors)


def _dims(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row length first; no axes become one, and of more than four the outer ones are merged.

    Examples
    --------
    >>> _dims((2, 3, 4, 5, 6)), _dims(())
    ((6, 5, 4, 6), (1,))
    """
    dims = tuple(reversed(shape)) or (1,)
    return dims if len(dims) <= _MAX_AXES else (*dims[: _MAX_AXES - 1], math.prod(dims[_MAX_AXES - 1 :]))
