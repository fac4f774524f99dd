"""Models assembled from tensors that lie elsewhere: everything downstream takes them as if they were GGUF files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from family_models import MODELS, TOKENS
from gguf_bytes import gguf, llama
from quantrs import _native
from quantrs.errors import FileError, InputError
from quantrs.families import graph_of
from quantrs.fingerprint import fingerprint
from quantrs.journal import Journal
from quantrs.options import QuantizeOptions
from quantrs.plan import Plan
from quantrs.writer import Writer

_N_HEADS = 4
_Stored = tuple[np.ndarray, str, str, int, float]
"""What lies in the source, its type, the order and heads of its rows, and what is to be added."""


def halves(rows: np.ndarray, n_heads: int = _N_HEADS) -> np.ndarray:
    """Rows of which each head's even ones come first, then its odd ones: how Hugging Face keeps those of a rotated matrix."""
    return rows.reshape(n_heads, -1, 2, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)


def taken_apart(name: str, values: np.ndarray) -> _Stored:
    """A tensor as another container could hold it, without loss."""
    kind = {"float16": "F16", "float32": "F32"}[values.dtype.name]
    if "attn_q" in name or "attn_k." in name:
        return halves(values), kind, "halves_to_pairs", _N_HEADS, 0.0
    if "ffn_down" in name:
        return np.ascontiguousarray(values.T), kind, "transposed", 0, 0.0
    if values.ndim == 1:
        return (values - 1).astype(np.float16), "F16", "as_stored", 0, 1.0
    return values, kind, "as_stored", 0, 0.0


def assembled(path: Path, tensors: dict[str, np.ndarray], stored: Callable[[str, np.ndarray], _Stored] = taken_apart) -> _native.Gguf:
    """The model of the GGUF file `path`, from one raw file for even and memory for odd tensors, each in two parts if that can be."""
    raw = path.with_suffix(".raw")
    sources: list[str | Path | tuple[str, np.ndarray]] = [raw]
    in_file, assembly = b"\0\0\0", []
    for i, (name, values) in enumerate(tensors.items()):
        data, kind, order, n_heads, add = stored(name, values)
        n_rows = values.size // values.shape[-1]
        source, offset = 0, len(in_file)
        if i % 2:
            source, offset = len(sources), 0
            sources.append((name, data.reshape(-1).view(np.uint8)))
        else:
            in_file += data.tobytes()
        parts = [_native.Part(source, offset, kind, n_rows, order, n_heads)]
        if order == "as_stored" and n_rows > 1:
            second = offset + data.nbytes // n_rows
            parts = [_native.Part(source, offset, kind, 1), _native.Part(source, second, kind, n_rows - 1)]
        target = {"float16": "F16", "float32": "F32"}[values.dtype.name]
        assembly.append(_native.AssembledTensor(name, values.shape[::-1], target, parts, add))
    raw.write_bytes(in_file)
    return _native.Gguf.assembled(_native.Gguf.open(path).header(), sources, assembly)


@pytest.fixture
def both(tmp_path: Path) -> tuple[_native.Gguf, _native.Gguf]:
    """A model as GGUF file, and the same one assembled."""
    tensors, metadata = llama()
    path = tmp_path / "small.gguf"
    path.write_bytes(gguf(tensors, metadata))
    return _native.Gguf.open(path), assembled(path, tensors)


def quantized(source: _native.Gguf, dst: Path, to: str) -> bytes:
    plan = Plan.for_gguf(source, QuantizeOptions(to=to), str(dst))
    plan.check()
    with Journal.lock(dst) as journal:
        job = fingerprint(source, plan)
        writer = Writer(
            source=source, plan=plan, job=job, journal=journal, done={}, progress=_native.Progress(), threads=None, measure=False
        )
        writer.run(force=False)
    return dst.read_bytes()


@pytest.mark.parametrize("to", ["Q4_K_M", "F16", "COPY"])
def test_an_assembled_model_is_quantized_to_the_same_file(to: str, both: tuple[_native.Gguf, _native.Gguf], tmp_path: Path) -> None:
    file, assembly = both
    assert quantized(assembly, tmp_path / "b.gguf", to) == quantized(file, tmp_path / "a.gguf", to)


def test_tensors_read_the_same_and_say_what_they_are_made_of(both: tuple[_native.Gguf, _native.Gguf]) -> None:
    file, assembly = both
    of_file, of_assembly = _native.Sources(file), _native.Sources(assembly)
    for want, got in zip(file.tensors, assembly.tensors, strict=True):
        assert of_assembly.read(got) == of_file.read(want), got.name
        assert (got.name, got.dims, got.type_name, got.nbytes) == (want.name, want.dims, want.type_name, want.nbytes)
        assert (want.parts, bool(got.parts), _native.check_tensor(of_assembly, got)) == ([], True, None)
    query = next(t for t in assembly.tensors if t.name == "blk.0.attn_q.weight")
    assert repr(query.parts[0]).endswith(f"'F16', 256, 'halves_to_pairs', {_N_HEADS})")
    assert (assembly.is_assembled, file.is_assembled) == (True, False)
    assert (len(assembly.files), len(assembly.sources)) == (1, 1 + len(assembly.memory_checksums()))
    assert sum(assembly.split_sizes) == len(assembly.tensors)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "qwen3moe"])
def test_an_assembled_model_computes_what_the_file_computes(name: str, tmp_path: Path) -> None:
    model = MODELS[name]
    path = tmp_path / "m.gguf"
    path.write_bytes(model.to_bytes())
    file = _native.Gguf.open(path)
    sources = _native.Sources(file)
    dtypes = {"F32": np.float32, "F16": np.float16}
    tensors = {t.name: np.frombuffer(sources.read(t), dtypes[t.type_name or ""]).reshape(t.dims[::-1]) for t in file.tensors}

    def stored(name: str, values: np.ndarray) -> _Stored:
        exact = values.ndim == 2 and ("attn_q" in name or "ffn_down" in name)
        return taken_apart(name, values) if exact else (values, "F32", "as_stored", 0, 0.0)

    graph, n_ctx = graph_of(file, n_ctx=None)
    want = _native.Engine.load(file, graph.to_json(), n_ctx=n_ctx).forward(TOKENS, "all")
    got = _native.Engine.load(assembled(path, tensors, stored), graph.to_json(), n_ctx=n_ctx).forward(TOKENS, "all")
    assert np.array_equal(got, want)


def test_jobs_differ_when_the_assembly_does(tmp_path: Path) -> None:
    tensors, metadata = llama()
    path = tmp_path / "small.gguf"
    path.write_bytes(gguf(tensors, metadata))

    def with_change(change: Callable[[str, np.ndarray], _Stored]) -> str:
        source = assembled(path, tensors, change)
        return fingerprint(source, Plan.for_gguf(source, QuantizeOptions(to="Q8_0"), str(tmp_path / "o.gguf"))).source_header

    def other_heads(name: str, values: np.ndarray) -> _Stored:
        data, kind, order, n_heads, add = taken_apart(name, values)
        return data, kind, order, n_heads // 2, add

    def other_addition(name: str, values: np.ndarray) -> _Stored:
        data, kind, order, n_heads, add = taken_apart(name, values)
        return data, kind, order, n_heads, 2 * add

    def other_values(name: str, values: np.ndarray) -> _Stored:
        data, *rest = taken_apart(name, values)
        return (np.zeros_like(data), *rest) if name == "output.weight" else (data, *rest)

    seen = [with_change(change) for change in (taken_apart, taken_apart, other_heads, other_addition, other_values)]
    assert seen[0] == seen[1]
    assert len(set(seen)) == 4


def test_the_split_of_an_assembly_cannot_be_kept(both: tuple[_native.Gguf, _native.Gguf]) -> None:
    with pytest.raises(InputError, match="--keep-split: the source is no split GGUF model"):
        Plan.for_gguf(both[1], QuantizeOptions(to="Q8_0", keep_split=True), "o.gguf")


def test_what_does_not_fit_is_refused_with_what_was_found(both: tuple[_native.Gguf, _native.Gguf], tmp_path: Path) -> None:
    file, assembly = both
    header = _native.GgufHeader.new(3)
    row = np.zeros(64, np.uint8)
    part = _native.Part(0, 0, "F16", 1)
    with pytest.raises(InputError, match="a tensor of another model"):
        _native.Sources(file).read(assembly.tensors[1])
    with pytest.raises(InputError, match="found part 0: values in bytes 0 to 128 of lent, expected a range within its 64 bytes"):
        _native.Gguf.assembled(header, [("lent", row)], [_native.AssembledTensor("t", [64], "F16", [part])])
    with pytest.raises(InputError, match="not contiguous"):
        _native.Gguf.assembled(header, [("lent", row[::2])], [])
    with pytest.raises(FileError, match="none: cannot open"):
        _native.Gguf.assembled(header, [tmp_path / "none"], [])
    with pytest.raises(InputError, match='order is "sideways"; expected as_stored'):
        _native.Part(0, 0, "F16", 1, "sideways")
    with pytest.raises(InputError, match='stored is "Q9"'):
        _native.Part(0, 0, "Q9", 1)
    with pytest.raises(InputError, match='t: unknown tensor type "F8_E4M3"'):
        _native.AssembledTensor("t", [64], "F8_E4M3", [part])


def test_memory_stays_alive_as_long_as_the_model_does() -> None:
    tensor = _native.AssembledTensor("t", [1 << 20], "I8", [_native.Part(0, 0, "I8", 1)])
    model = _native.Gguf.assembled(_native.GgufHeader.new(3), [("lent", np.full(1 << 20, 7, np.uint8))], [tensor])
    np.full(1 << 20, 9, np.uint8)  # would take the freed place
    assert _native.Sources(model).read(model.tensors[0]) == bytes([7]) * (1 << 20)
