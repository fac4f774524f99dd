"""Copy the outputs of other tools that our tests compare with into ``tests/golden``.

``python tools/make_golden.py SRC`` reads a folder of fixtures (one subfolder per outside tool), filters what must not be
published or is not needed, and writes ``tests/golden/<set>/`` and ``tests/golden/manifest.toml``. Nothing is computed
here and nothing comes from quantrs itself: a golden file that our own code wrote would only prove that it did not change.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"


@dataclass(frozen=True)
class Origin:
    """Where the files of one set come from, as the manifest records it."""

    tool: str
    commit: str
    flags: str
    seed: str
    licence: str


@dataclass(frozen=True)
class GoldenSet:
    """One subfolder of the fixtures: which files are taken, and how."""

    origin: Origin
    files: Callable[[Path], Iterable[Path]]
    """The files to take, given the set's folder."""
    copy: Callable[[Path, Path], None]
    """Copies one file, filtering on the way."""


def ggml_files(folder: Path) -> Iterable[Path]:
    """Every array file, the table of type choices and the tiny model's files."""
    yield from sorted(folder.glob("*.npz"))
    yield folder / "ftype_mix.json"
    yield from sorted((folder / "tiny").iterdir())


def copy_ggml(source: Path, target: Path) -> None:
    """Copy one file of the ggml set without the rows that fall under the Gemma Terms of Use."""
    if source.suffix != ".npz":
        shutil.copyfile(source, target)
        return
    with np.load(source) as arrays:
        kept = {key: arrays[key] for key in arrays.files if not key.startswith("gemma_")}
    if source.name == "dot.npz":
        kept = {key: without_row_3(key, array) for key, array in kept.items()}
    save_npz(target, kept)


def copy_file(source: Path, target: Path) -> None:
    """Copy one file as it is."""
    shutil.copyfile(source, target)


WITH_WEIGHTS = ("tiny-gpt2", "tiny-llama3-rope", "tiny-qwen2moe")
"""Checkpoints of which the weights are kept too: transposed, in pairs, of experts. Of the others names, shapes and settings will do."""


def hf_files(folder: Path) -> Iterable[Path]:
    """Settings, tokenizers and weights of the tiny checkpoints."""
    yield from sorted(path for path in folder.glob("tiny-*/*") if path.suffix in (".json", ".safetensors"))


LAYER = "model.layers.0.self_attn.k_proj."
"""The linear layer that is kept of quantized checkpoints, and of the one that they were made from."""


def checkpoint_files(folder: Path) -> Iterable[Path]:
    """Bit orders, and of each quantized checkpoint settings and weights."""
    yield folder / "packing.npz"
    for checkpoint in sorted(folder.glob("tiny_llama_*")):
        yield from (checkpoint / "config.json", checkpoint / "model.safetensors")


def gptq_files(folder: Path) -> Iterable[Path]:
    """As `checkpoint_files`, with the solver's problems and the lists of cases."""
    yield from (folder / "packing_index.json", folder / "algorithm.npz", folder / "algorithm_index.json")
    yield from checkpoint_files(folder)


def copy_checkpoint(source: Path, target: Path) -> None:
    """Copy one file; of safetensors files one linear layer, as ``layer.safetensors``; of arrays not what follows from others."""
    if source.suffix == ".safetensors":
        copy_layer(source, target.with_name("layer.safetensors"))
    elif source.name == "packing.npz":
        with np.load(source) as arrays:
            save_npz(target, {key: arrays[key] for key in arrays.files if not follows_from_others(key)})
    else:
        shutil.copyfile(source, target)


def follows_from_others(key: str) -> bool:
    """Products of packed layers, and most dequantized ones."""
    case, _, name = key.rpartition(".")
    return (
        name in ("fake_quant_f16", "y_f32", "bias") or key == "x" or (name == "dequant" and case.startswith("b") and "_g128_" not in case)
    )


def copy_layer(source: Path, target: Path) -> None:
    """Copy the tensors of `LAYER` into a safetensors file of their own."""
    data = source.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header, kept, parts, end = json.loads(data[8:start]), {}, [], 0
    for name in sorted(name for name in header if name.startswith(LAYER)):
        first, last = header[name]["data_offsets"]
        parts.append(data[start + first : start + last])
        kept[name] = header[name] | {"data_offsets": [end, end + last - first]}
        end += last - first
    text = json.dumps(kept, separators=(",", ":")).encode()
    target.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))


def copy_hf(source: Path, target: Path) -> None:
    """Copy one file of a checkpoint; of most safetensors files the header alone, as ``.header``; of tiny-llama also a layer."""
    if source.suffix == ".safetensors" and source.parent.name == "tiny-llama":
        copy_layer(source, target.with_suffix(".layer"))
    if source.suffix != ".safetensors" or source.parent.name in WITH_WEIGHTS:
        shutil.copyfile(source, target)
        return
    with source.open("rb") as file:
        length = file.read(8)
        header = length + file.read(int.from_bytes(length, "little"))
    target.with_suffix(".header").write_bytes(header)


def copy_hf_gguf(source: Path, target: Path) -> None:
    """Keep of a GGUF file, as ``.json``, its keys and of each tensor name, type, shape and the sha256 of its bytes."""
    from gguf import GGUFReader

    reader = GGUFReader(source)
    keys = {}
    for name, field in reader.fields.items():
        if not name.startswith("GGUF."):
            kinds = [kind.name.lower() for kind in field.types]
            keys[name] = ["/".join(kinds), field.contents()]
    tensors = [
        [tensor.name, tensor.tensor_type.name, [int(n) for n in tensor.shape], hashlib.sha256(tensor.data.tobytes()).hexdigest()]
        for tensor in reader.tensors
    ]
    target.with_suffix(".json").write_text(json.dumps({"keys": keys, "tensors": tensors}, separators=(",", ":")), encoding="utf-8")


def without_row_3(key: str, array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Drop weight row 3 of the dot products (a Gemma row); activations keep their four rows."""
    of_weights = key == "w_f32" or key.endswith(("/w", "/dot", "/dot_f64"))
    return np.delete(array, 3, axis=0) if of_weights else array


def save_npz(target: Path, arrays: dict[str, NDArray[np.generic]]) -> None:
    """Write a compressed npz whose bytes depend on the arrays only (fixed order, fixed time stamps, strongest level)."""
    with zipfile.ZipFile(target, "w") as archive:
        for key, array in sorted(arrays.items()):
            buffer = io.BytesIO()
            np.save(buffer, array, allow_pickle=False)
            member = zipfile.ZipInfo(f"{key}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(member, buffer.getvalue(), zipfile.ZIP_DEFLATED, 9)


SETS = {
    "awq": GoldenSet(
        Origin(
            tool="autoawq 0.2.9 on torch 2.13.0 (CPU), its backup of the weights replaced by real copies",
            commit="autoawq 0.2.9",
            flags="as index.json lists them for each case",
            seed="none needed: the inputs are stored",
            licence="constructed data: same as quantrs",
        ),
        lambda folder: [folder / "algorithm.npz", folder / "index.json", *checkpoint_files(folder)],
        copy_checkpoint,
    ),
    "compressed_tensors": GoldenSet(
        Origin(
            tool="compressed-tensors 0.19.0 through llmcompressor 0.14.0.1 on torch 2.13.0 (CPU)",
            commit="llmcompressor 0.14.0.1",
            flags="schemes as in config.json; round to nearest, lm_head kept",
            seed="none needed: the layer's source is hf/tiny-llama/model.layer",
            licence="constructed data: same as quantrs",
        ),
        checkpoint_files,
        copy_checkpoint,
    ),
    "family_logits": GoldenSet(
        Origin(
            tool="libllama over the models of tests/family_models.py, by tools/make_family_logits.py and tools/dump_logits.cpp",
            commit="llama.cpp of llama-cpp-python 0.3.36",
            flags="CPU backend, native, no floating-point contraction; one thread, float32 keys and values, no flash attention",
            seed="none needed: the weights are an integer hash of their names",
            licence="constructed data: same as quantrs",
        ),
        lambda folder: [folder / "logits.npz"],
        copy_file,
    ),
    "ggml": GoldenSet(
        Origin(
            tool="ggml 0.25.3: ggml_quantize_chunk, its decoders and dot kernels, llama-quantize, llama-imatrix",
            commit="llama.cpp 0c1e57098",
            flags="GCC 12.2, baseline x86-64 (no FMA instruction, so no floating-point contraction), NDEBUG, glibc 2.36",
            seed="none needed: the inputs are stored in inputs.npz and imatrix.npz",
            licence="constructed data: same as quantrs; smollm_* and minilm_*: Apache-2.0 (SmolLM2, all-MiniLM-L6-v2)",
        ),
        ggml_files,
        copy_ggml,
    ),
    "gptq": GoldenSet(
        Origin(
            tool="gptqmodel 7.7.0 on torch 2.13.0 (CPU)",
            commit="gptqmodel 7.7.0",
            flags="damp 0.01, block 128, no mse search; the rest as packing_index.json and algorithm_index.json list it for each case",
            seed="none needed: the inputs are stored",
            licence="constructed data: same as quantrs",
        ),
        gptq_files,
        copy_checkpoint,
    ),
    "hf": GoldenSet(
        Origin(
            tool="save_pretrained of transformers 4.51.3, tiny models of random weights (tiny-llama is trained; its weights are not kept)",
            commit="transformers 4.51.3",
            flags="the defaults; shards of 400 kB for tiny-qwen2",
            seed="none needed: the weights, or the headers of their files, are stored",
            licence="constructed data: same as quantrs",
        ),
        hf_files,
        copy_hf,
    ),
    "hf-gguf": GoldenSet(
        Origin(
            tool="convert_hf_to_gguf.py on the checkpoints of set hf, told that every pre-tokenizer is llama-bpe",
            commit="llama.cpp 0c1e57098",
            flags="--outtype f32",
            seed="none needed: a conversion",
            licence="constructed data: same as quantrs",
        ),
        lambda folder: sorted(folder.glob("*.gguf")),
        copy_hf_gguf,
    ),
    "inc": GoldenSet(
        Origin(
            tool="neural-compressor-pt 3.10 on torch 2.13.0 (CPU, one thread): TorchSmoothQuant.transform, RTNConfig",
            commit="neural-compressor-pt 3.10",
            flags="smoothquant: alpha 0, 0.3, 0.5, 0.8 and 1, with and without folding; woq: as the keys say",
            seed="none needed: the inputs are stored",
            licence="constructed data: same as quantrs",
        ),
        lambda folder: [folder / "smoothquant.npz", folder / "woq.npz"],
        copy_file,
    ),
    "llama_quantize": GoldenSet(
        Origin(
            tool="llama-quantize over the models and cases of tests/quantize_cases.py, by tools/make_quantize_headers.py",
            commit="llama.cpp 0c1e57098",
            flags="the defaults of its CMake build",
            seed="none needed: the weights are zeros",
            licence="constructed data: same as quantrs",
        ),
        lambda folder: [folder / "headers.json"],
        copy_file,
    ),
    "tokenizer_keys": GoldenSet(
        Origin(
            tool="llama.cpp's conversion package with transformers 5.24 and sentencepiece 0.2.3, by tools/make_tokenizer_keys.py",
            commit="llama.cpp 0c1e57098",
            flags="pre-tokenizer forced to gpt-2",
            seed="none needed: the vocabularies are stored in the file",
            licence="vocabularies trained on the text of the Apache License 2.0; otherwise constructed: same as quantrs",
        ),
        lambda folder: [folder / "cases.json.xz"],
        copy_file,
    ),
}


def toml_string(text: str) -> str:
    """Quote text for TOML (our values hold no control characters)."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def manifest() -> str:
    """The manifest of everything that lies in ``tests/golden`` now."""
    lines = ["# Written by tools/make_golden.py; tests/test_golden_manifest.py checks it. All paths are relative to this file.", ""]
    for name, golden_set in sorted(SETS.items()):
        lines.append(f"[set.{name}]")
        lines += [f"{key} = {toml_string(value)}" for key, value in vars(golden_set.origin).items()]
        lines.append("")
        for path in sorted(p for p in (GOLDEN / name).rglob("*") if p.is_file()):
            lines.append(f"[file.{toml_string(path.relative_to(GOLDEN).as_posix())}]")
            lines += [f"set = {toml_string(name)}", f"sha256 = {toml_string(hashlib.sha256(path.read_bytes()).hexdigest())}", ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def main() -> int:
    """Copy every set that SRC has, then rewrite the manifest."""
    parser = argparse.ArgumentParser(description="Copy and filter golden files from a folder of fixtures.")
    parser.add_argument("src", type=Path, metavar="SRC", help="folder that holds one folder of fixtures per set")
    source: Path = parser.parse_args().src
    for name, golden_set in SETS.items():
        if not (source / name).is_dir():
            print(f"{source / name}: no such folder; the files of {name} stay as they are", file=sys.stderr)
            continue
        for path in golden_set.files(source / name):
            target = GOLDEN / name / path.relative_to(source / name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            golden_set.copy(path, target)
    (GOLDEN / "manifest.toml").write_text(manifest(), encoding="utf-8")
    total = sum(p.stat().st_size for p in GOLDEN.rglob("*") if p.is_file())
    print(f"{GOLDEN}: {total / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
