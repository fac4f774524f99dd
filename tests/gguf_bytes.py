"""GGUF files made by hand, so that tests of the reader do not lean on the writer."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

TYPES = {"F32": (0, "<f4"), "F16": (1, "<f2"), "I8": (24, "i1"), "I32": (26, "<i4")}
_SCALARS = {
    "u8": (0, "B"),
    "i8": (1, "b"),
    "u16": (2, "H"),
    "u32": (4, "I"),
    "i32": (5, "i"),
    "f32": (6, "f"),
    "u64": (10, "Q"),
    "f64": (12, "d"),
}


def text(value: str | bytes) -> bytes:
    """A GGUF string."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def value_bytes(value: object) -> bytes:
    """A typed value; ``("u16", 3)`` names the type, plain Python values get the usual one."""
    if isinstance(value, tuple):
        code, fmt = _SCALARS[value[0]]
        return struct.pack(f"<I{fmt}", code, value[1])
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str | bytes):
        return struct.pack("<I", 8) + text(value)
    assert isinstance(value, list)
    if value and isinstance(value[0], str | bytes):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
    return struct.pack("<IIQ", 9, 5, len(value)) + np.asarray(value, "<i4").tobytes()


def gguf(
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, object] | None = None,
    *,
    type_ids: Mapping[str, int] | None = None,
    alignment: int = 32,
) -> bytes:
    """A GGUF v3 file of float32, float16, int8 and int32 tensors; `type_ids` writes another type id for a tensor."""
    metadata = {"general.architecture": "llama", **(metadata or {})}
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, value in metadata.items():
        out += text(key) + value_bytes(value)
    offset = 0
    blobs = []
    for name, array in tensors.items():
        type_id = next(code for code, dtype in TYPES.values() if np.dtype(dtype) == array.dtype)
        out += text(name) + struct.pack(f"<I{array.ndim}Q", array.ndim, *reversed(array.shape))
        out += struct.pack("<IQ", (type_ids or {}).get(name, type_id), offset)
        blob = array.tobytes()
        blobs.append(blob + bytes(-len(blob) % alignment))
        offset += len(blobs[-1])
    return out + bytes(-len(out) % alignment) + b"".join(blobs)


def llama(
    n_layers: int = 2, hidden: int = 256, ffn: int = 512, vocab: int = 64, seed: int = 0
) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Tensors and metadata of a small llama in float16, rows that every K-quant takes."""
    rng = np.random.default_rng(seed)

    def weight(rows: int, cols: int) -> np.ndarray:
        return (rng.standard_normal((rows, cols), np.float32) * 0.02).astype(np.float16)

    tensors = {
        "token_embd.weight": weight(vocab, hidden),
        "output.weight": weight(vocab, hidden),
        "output_norm.weight": np.ones(hidden, np.float32),
    }
    shapes = {"attn_q": (hidden, hidden), "attn_k": (hidden, hidden), "attn_v": (hidden, hidden), "attn_output": (hidden, hidden)}
    shapes |= {"ffn_gate": (ffn, hidden), "ffn_up": (ffn, hidden), "ffn_down": (hidden, ffn)}
    for i in range(n_layers):
        tensors |= {f"blk.{i}.{name}.weight": weight(*shape) for name, shape in shapes.items()}
        tensors |= {f"blk.{i}.{name}.weight": np.ones(hidden, np.float32) for name in ("attn_norm", "ffn_norm")}
    metadata: dict[str, object] = {
        "general.name": "small",
        "general.file_type": 1,
        "llama.block_count": n_layers,
        "llama.embedding_length": hidden,
        "llama.feed_forward_length": ffn,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 4,
        "tokenizer.ggml.tokens": [f"t{i}" for i in range(vocab)],
    }
    return tensors, metadata


def write_llama(path: Path, n_layers: int = 2, hidden: int = 256, ffn: int = 512, vocab: int = 64, seed: int = 0) -> Path:
    """Write `llama` to a file."""
    tensors, metadata = llama(n_layers, hidden, ffn, vocab, seed)
    path.write_bytes(gguf(tensors, metadata))
    return path
