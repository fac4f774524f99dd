"""safetensors headers through the Python face; the parser's own tests are in Rust."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quantrs import _native
from quantrs.errors import FileError, FormatError, InputError


def write(path: Path, header: object, n_bytes: int) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(n_bytes))
    return path


def test_a_header_is_read_and_written(tmp_path: Path) -> None:
    tensors = [("w", "BF16", (2, 3)), ("scale", "F32", ())]
    header, offsets = _native.safetensors_header(tensors, {"format": "pt"})
    path = tmp_path / "m.safetensors"
    path.write_bytes(header + bytes(16))
    read = _native.SafeTensors.open(path)
    assert read.tensors == [("scale", "F32", (), len(header), 4), ("w", "BF16", (2, 3), len(header) + 4, 12)]
    assert (offsets, read.metadata, read.file_size) == ([len(header) + 4, len(header)], {"format": "pt"}, len(header) + 16)


def test_refusals_have_the_class_of_their_kind(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="none: cannot open"):
        _native.SafeTensors.open(tmp_path / "none")
    lying = write(tmp_path / "m.safetensors", {"w": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, 8)
    with pytest.raises(FormatError, match=r"m\.safetensors: byte \d+, tensor 'w', data_offsets: found \[0, 8\], expected 12 bytes"):
        _native.SafeTensors.open(lying)
    with pytest.raises(InputError, match='w: found the dtype "Q4_K", expected one of BOOL, U8'):
        _native.safetensors_header([("w", "Q4_K", (256,))], {})
    with pytest.raises(InputError, match="expected unique names"):
        _native.safetensors_header([("w", "F32", (1,)), ("w", "F32", (1,))], {})
