"""Small models and option sets for which ``tests/golden/llama_quantize/headers.json`` records what llama-quantize writes.

Only headers are compared, so the weights are holes of zeros. ``tools/make_quantize_headers.py`` runs the tool over the
same models and cases.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from pathlib import Path

from gguf_bytes import text, value_bytes

Shapes = dict[str, tuple[str, tuple[int, ...]]]
"""Name to (type, shape with rows first)."""

_TYPES = {"F32": (0, 4), "F16": (1, 2)}


def write_hole(path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, object]) -> Path:
    """Write a GGUF v3 file whose tensor data is a hole, aligned as ``general.alignment`` says."""
    alignment = metadata.get("general.alignment", 32)
    assert isinstance(alignment, int)
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, value in metadata.items():
        out += text(key) + value_bytes(value)
    offset = 0
    for name, (type_name, shape) in tensors.items():
        type_id, item_bytes = _TYPES[type_name]
        out += text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape)) + struct.pack("<IQ", type_id, offset)
        offset += -(-prod(shape) * item_bytes // alignment) * alignment
    out += bytes(-len(out) % alignment)
    with path.open("wb") as file:
        file.write(out)
        file.truncate(len(out) + offset)
    return path


def llama_shapes(n_layers: int, hidden: int = 256, ffn: int = 512, vocab: int = 64) -> Shapes:
    """The tensors of a small llama, in no particular order."""
    shapes: Shapes = {
        "token_embd.weight": ("F16", (vocab, hidden)),
        "output.weight": ("F16", (vocab, hidden)),
        "output_norm.weight": ("F32", (hidden,)),
    }
    square, wide = (hidden, hidden), (ffn, hidden)
    rows = {
        "attn_q": square,
        "attn_k": square,
        "attn_v": square,
        "attn_output": square,
        "ffn_gate": wide,
        "ffn_up": wide,
        "ffn_down": (hidden, ffn),
    }
    for layer in reversed(range(n_layers)):
        shapes |= {f"blk.{layer}.{name}.weight": ("F16", shape) for name, shape in rows.items()}
        shapes |= {f"blk.{layer}.{name}.weight": ("F32", (hidden,)) for name in ("attn_norm", "ffn_norm")}
    return shapes


def llama_metadata(n_layers: int, hidden: int = 256, ffn: int = 512, vocab: int = 64) -> dict[str, object]:
    """What llama.cpp wants to know of a llama."""
    return {
        "general.architecture": "llama",
        "general.name": "small",
        "general.file_type": 1,
        "llama.block_count": n_layers,
        "llama.context_length": 128,
        "llama.embedding_length": hidden,
        "llama.feed_forward_length": ffn,
        "llama.attention.head_count": 8,
        "llama.attention.head_count_kv": 8,
        "llama.rope.dimension_count": hidden // 8,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.vocab_size": vocab,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": [f"t{i}" for i in range(vocab)],
        "tokenizer.ggml.token_type": [1] * vocab,
        "tokenizer.ggml.merges": ["t 0"],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
    }


def _with_experts(shapes: Shapes, n_experts: int) -> Shapes:
    out: Shapes = {}
    for name, (type_name, shape) in shapes.items():
        is_expert = "ffn_" in name and "norm" not in name
        out[name.replace(".weight", "_exps.weight") if is_expert else name] = (type_name, (n_experts, *shape) if is_expert else shape)
    layers = sorted({name.split(".")[1] for name in shapes if name.startswith("blk.")})
    return out | {f"blk.{layer}.ffn_gate_inp.weight": ("F32", (n_experts, 256)) for layer in layers}


def write_models(folder: Path) -> None:
    """Write every source file of the cases."""
    plain, deep = llama_shapes(3), llama_shapes(8)
    write_hole(folder / "plain.gguf", plain, llama_metadata(3))
    write_hole(folder / "deep.gguf", deep, llama_metadata(8))

    odd = llama_shapes(3, hidden=288, ffn=352)
    del odd["output.weight"]
    # Keys that are there already, in places where the tool does not leave them; no general.file_type.
    before = {"quantize.imatrix.file": "old", "general.quantization_version": 1}
    metadata = before | {key: value for key, value in llama_metadata(3, hidden=288, ffn=352).items() if key != "general.file_type"}
    write_hole(folder / "odd.gguf", odd, metadata)

    experts = _with_experts(llama_shapes(4), 8)
    write_hole(folder / "experts.gguf", experts, llama_metadata(4) | {"llama.expert_count": 8, "llama.expert_used_count": 2})

    for name, shapes in (("deep", deep), ("odd", odd), ("experts", experts)):
        write_hole(folder / f"{name}.imatrix.gguf", _imatrix_shapes(shapes), {
            "general.type": "imatrix", "imatrix.datasets": ["a.txt", "b.txt"], "imatrix.chunk_count": 3, "imatrix.chunk_size": 512,
        })  # fmt: skip

    write_split(folder, "split", plain, llama_metadata(3), (14, 14))
    write_split(folder, "bare", plain, llama_metadata(3), (0, 14))


def _imatrix_shapes(shapes: Shapes) -> Shapes:
    sums: Shapes = {}
    for name, (_, shape) in shapes.items():
        if len(shape) > 1:
            n_experts = shape[0] if len(shape) == 3 else 1
            sums[f"{name}.in_sum2"] = ("F32", (n_experts, shape[-1]))
            sums[f"{name}.counts"] = ("F32", (n_experts, 1))
    return sums


def write_split(folder: Path, prefix: str, shapes: Shapes, metadata: dict[str, object], cuts: Sequence[int]) -> None:
    """Write a model over three files; `cuts` are the numbers of tensors in the first two."""
    rows = list(shapes.items())
    first, second = cuts
    parts = (rows[:first], rows[first : first + second], rows[first + second :])
    for number, part in enumerate(parts):
        keys: dict[str, object] = {"split.no": ("u16", number), "split.count": ("u16", 3), "split.tensors.count": ("i32", len(rows))}
        write_hole(folder / f"{prefix}-{number + 1:05d}-of-00003.gguf", dict(part), (metadata if number == 0 else {}) | keys)


_ALL = [
    "Q1_0",
    "Q2_0",
    "Q4_0",
    "Q4_1",
    "MXFP4_MOE",
    "Q5_0",
    "Q5_1",
    "TQ1_0",
    "TQ2_0",
    "Q2_K",
    "Q3_K",
    "Q3_K_S",
    "Q3_K_M",
    "Q3_K_L",
    "IQ4_NL",
    "IQ4_XS",
    "Q4_K",
    "Q4_K_S",
    "Q4_K_M",
    "Q5_K",
    "Q5_K_S",
    "Q5_K_M",
    "Q6_K",
    "Q8_0",
    "F16",
    "BF16",
    "F32",
    "COPY",
    "15",
    "0",
]
_NEEDS_IMATRIX = ["Q2_K_S", "IQ3_XXS", "IQ2_M", "IQ1_S", "IQ3_XS", "IQ3_M"]


def cases() -> Iterable[tuple[str, dict[str, object]]]:
    """(source, keyword arguments of `QuantizeOptions`)."""
    for source in ("plain.gguf", "odd.gguf", "experts.gguf"):
        yield from ((source, {"to": to}) for to in _ALL if (source, to) != ("odd.gguf", "Q1_0"))
    yield from (("deep.gguf", {"to": to, "imatrix": "deep.imatrix.gguf"}) for to in _ALL + _NEEDS_IMATRIX)
    yield from (("experts.gguf", {"to": to, "imatrix": "experts.imatrix.gguf"}) for to in ("Q4_0", "Q4_K_M", "IQ2_XS"))
    yield from (("odd.gguf", {"to": to, "imatrix": "./odd.imatrix.gguf"}) for to in ("Q4_0", "Q4_K_M", "COPY"))
    for options in _PLAIN_OPTIONS:
        yield "plain.gguf", {"to": "Q4_K_M", **options}
    for options in _ODD_OPTIONS:
        yield "odd.gguf", {"to": "Q4_K_M", **options}
    for layers in ([0], [3], [7], [2, 5], [0, 1, 2], [6, 7]):
        yield from (("deep.gguf", {"to": to, "prune_layers": layers}) for to in ("Q4_K_M", "Q3_K_M"))
    yield from _DEEP_CASES
    for source in ("split-00001-of-00003.gguf", "bare-00001-of-00003.gguf"):
        for to in ("Q8_0", "Q4_K_M", "Q3_K_M"):
            yield from ((source, {"to": to, "keep_split": keep_split}) for keep_split in (False, True))
    yield "split-00001-of-00003.gguf", {"to": "Q3_K_M", "keep_split": True, "prune_layers": [1]}
    yield "plain.gguf", {"to": "Q4_0", "keep_split": True}
    yield "experts.gguf", {"to": "Q4_K_M", "override_kv": ["llama.expert_count=int:4"]}


_PLAIN_OPTIONS: list[dict[str, object]] = [
    {"pure": True},
    {"leave_output_tensor": True},
    {"override_kv": ["general.name=str:other", "llama.context_length=int:77"]},
    {"override_kv": ["llama.attention.head_count_kv=int:2"]},
    {"override_kv": ["llama.block_count=int:80", "llama.attention.head_count_kv=int:2"]},
    {"override_kv": ["llama.x=float:1.5", "llama.y=bool:true", "llama.z=int:-5", "llama.x=float:2.5"]},
    {"tensor_types": [["attn_v", "q6_k"]]},
    {"tensor_types": [[r"blk\.[01]\.ffn_down", "q8_0"]]},
    {"tensor_types": [[r"blk\.\d\.attn_(q|k)\.weight$", "F16"], ["attn_q", "q4_0"]]},
    {"tensor_types": [[r"[[:digit:]]\.ffn", "Q5_0"]]},
    {"tensor_types": [["output", "q3_k"]]},
    {"tensor_types": [["weight", "iq4_nl"]], "output_tensor_type": "F16"},
    {"output_tensor_type": "q8_0", "token_embedding_type": "q4_0"},
]

_ODD_OPTIONS: list[dict[str, object]] = [
    {"output_tensor_type": "q8_0"},
    {"output_tensor_type": "q6_k"},
    {"output_tensor_type": "q8_0", "pure": True},
    {"output_tensor_type": "q8_0", "tensor_types": [["token_embd", "q4_1"]]},
    {"token_embedding_type": "q4_1"},
    {"token_embedding_type": "q4_1", "output_tensor_type": "q8_0"},
    {"leave_output_tensor": True},
    {"tensor_types": [["ffn", "q6_k"]]},
]

_DEEP_CASES: list[tuple[str, dict[str, object]]] = [
    ("deep.gguf", {"to": "Q4_K_M", "prune_layers": [2, 5], "imatrix": "deep.imatrix.gguf"}),
    ("deep.gguf", {"to": "IQ4_XS", "imatrix": "deep.imatrix.gguf", "exclude_weights": ["ffn_down", "output"]}),
    ("deep.gguf", {"to": "IQ4_XS", "imatrix": "deep.imatrix.gguf", "include_weights": ["ffn_down", "attn_v"]}),
    ("deep.gguf", {"to": "Q4_0", "imatrix": "deep.imatrix.gguf", "include_weights": ["nothing"]}),
    ("deep.gguf", {"to": "Q4_0", "imatrix": "./" * 70 + "deep.imatrix.gguf"}),
    ("deep.gguf", {"to": "F16", "token_embedding_type": "q8_0"}),
    ("deep.gguf", {"to": "F16", "tensor_types": [["ffn", "q8_0"]]}),
    ("deep.gguf", {"to": "BF16", "pure": True, "output_tensor_type": "q6_k"}),
]
