"""What running a model takes: the engine's own count of its cache, the process's memory, and what fits where."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import quantrs as qr
from conftest import Ran
from family_models import MODELS, Model
from quantrs.errors import InputError, UsageError
from quantrs.families import graph_of
from quantrs.fitting import SizeRequest
from quantrs.hardware import devices, find_devices, usable_bytes
from quantrs.memory import KV_TYPES, buffer_bytes, kv_cache_bytes
from quantrs.sizing import ModelSizes, size, size_of_model

CTX = 300


def wide_llama(**changes: int) -> Model:
    """A model whose heads every cache type takes and whose buffers are some megabytes."""
    n_embd, n_ff, n_vocab, n_heads, n_kv_heads = 1024, 2816, 64, 16, 4
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (n_vocab, n_embd), "output_norm.weight": (n_embd,)}
    for i in range(2):
        for name, rows, cols in (
            ("attn_q", n_embd, n_embd),
            ("attn_k", 64 * n_kv_heads, n_embd),
            ("attn_v", 64 * n_kv_heads, n_embd),
            ("attn_output", n_embd, n_embd),
            ("ffn_gate", n_ff, n_embd),
            ("ffn_up", n_ff, n_embd),
            ("ffn_down", n_embd, n_ff),
        ):
            shapes[f"blk.{i}.{name}.weight"] = (rows, cols)
        shapes |= {f"blk.{i}.{name}.weight": (n_embd,) for name in ("attn_norm", "ffn_norm")}
    sizes = {"embedding_length": n_embd, "feed_forward_length": n_ff, "block_count": 2, "context_length": 8192}
    heads = {"attention.head_count": n_heads, "attention.head_count_kv": n_kv_heads, "attention.layer_norm_rms_epsilon": 1e-5}
    return Model("llama", {**sizes, **heads, **changes}, shapes)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wide") / "wide.gguf"
    path.write_bytes(wide_llama().to_bytes())
    return path


@pytest.mark.parametrize("kv_type", ["f32", "f16"])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_cache_is_what_the_engine_allocates(name: str, kv_type: str, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(MODELS[name].to_bytes())
    session = qr.Session(tmp_path / "m.gguf", kv_type=kv_type, threads=1)
    ids = [i % session.n_vocab for i in range(session.n_ctx)]
    session.engine.forward(ids)
    graph, n_ctx = graph_of(session.gguf)
    assert kv_cache_bytes(graph, kv_type, n_ctx) == session.engine.cache_bytes


@pytest.mark.parametrize("kv_type", KV_TYPES)
@pytest.mark.parametrize("n_ctx", [1, 256, CTX])
def test_the_cache_grows_by_spans_in_every_type(n_ctx: int, kv_type: str, wide: Path) -> None:
    session = qr.Session(wide, kv_type=kv_type, n_ctx=n_ctx)
    session.engine.forward([1] * n_ctx)
    assert kv_cache_bytes(graph_of(session.gguf)[0], kv_type, n_ctx) == session.engine.cache_bytes


def test_heads_that_are_no_whole_blocks_have_no_size_in_such_a_type(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(MODELS["llama"].to_bytes())  # heads of 16 values
    rows = {row.name: row.bytes for row in size_of_model(tmp_path / "m.gguf").kv_cache}
    assert (rows["q8_0"], rows["q4_0"]) == (None, None)
    assert rows["f16"]
    with pytest.raises(InputError, match=r"heads of 16 values .* q8_0"):
        size_of_model(tmp_path / "m.gguf", SizeRequest(kv_type="q8_0"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("file_type", ["F16", "Q4_0"])
def test_buffers_are_what_the_process_grows_by(file_type: str, wide: Path, tmp_path: Path, python: Callable[..., Ran]) -> None:
    qr.quantize_checkpoint(wide, tmp_path / "m.gguf", scheme=file_type)
    code = """if True:
        import re, sys, numpy, quantrs as qr
        from pathlib import Path
        def held(): return 1024 * int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
        session = qr.Session(sys.argv[1], n_ctx=512, threads=1, kv_type="f16")
        ids = [i % 64 for i in range(512)]
        before = held()
        logits = session.engine.forward(ids)
        print(held() - before)
    """
    ran = python("-c", code, tmp_path / "m.gguf")
    assert ran.code == 0, ran.err
    graph, _ = graph_of(qr.Session(wide).gguf)
    counted = buffer_bytes(graph, 512, float_weights=file_type == "F16") + (kv_cache_bytes(graph, "f16", 512) or 0)
    assert counted > 20e6
    assert int(ran.out) == pytest.approx(counted, abs=2.5e6)


def test_totals_add_up_and_batches_multiply(wide: Path) -> None:
    one, three = (size_of_model(wide, SizeRequest(n_ctx=1000, batch=n)) for n in (1, 3))
    assert [3 * (row.bytes or 0) for row in one.kv_cache] == [row.bytes for row in three.kv_cache]
    kv = {row.name: row.bytes for row in three.kv_cache}["f16"]
    for row, single in zip(three.types, one.types, strict=True):
        assert row.total_bytes == row.weights_bytes + kv + row.buffer_bytes
        assert row.buffer_bytes == 3 * single.buffer_bytes


def test_the_context_is_what_the_model_was_made_for_at_most_4096(wide: Path, tmp_path: Path) -> None:
    assert (size_of_model(wide).context, size_of_model(wide).trained_context) == (4096, 8192)
    (tmp_path / "m.gguf").write_bytes(wide_llama(context_length=100).to_bytes())
    assert size_of_model(tmp_path / "m.gguf").context == 100
    assert "made for contexts of 100 tokens" in size_of_model(tmp_path / "m.gguf", SizeRequest(n_ctx=101)).notices[0]


def test_the_best_type_is_the_largest_that_fits(wide: Path) -> None:
    sizes = size_of_model(wide, SizeRequest(n_ctx=512))
    totals = {row.name: row.total_bytes for row in sizes.types}
    for name in ("Q8_0", "Q4_K_M", "Q2_K"):
        memory = -(-totals[name] * 8 // 7)
        found = size_of_model(wide, SizeRequest(n_ctx=512, ram=memory))
        assert found.best == {"ram": name}
        assert all(row.fits == {"ram": row.total_bytes <= usable_bytes(memory, "ram")} for row in found.types if row.total_bytes)
    assert size_of_model(wide, SizeRequest(ram=1000, vram=2**40)).best == {"ram": None, "vram": "F32"}


def test_a_type_larger_than_the_source_is_never_the_best(wide: Path, tmp_path: Path) -> None:
    qr.quantize_checkpoint(wide, tmp_path / "m.gguf", scheme="Q6_K")
    assert size_of_model(tmp_path / "m.gguf", SizeRequest(ram=2**40)).best == {"ram": "Q6_K"}


def test_a_model_that_cannot_be_run_is_sized_by_its_files_alone(tmp_path: Path) -> None:
    model = wide_llama()
    model.architecture = "unheard-of"
    (tmp_path / "m.gguf").write_bytes(model.to_bytes())
    sizes = size_of_model(tmp_path / "m.gguf", SizeRequest(ram=2**30))
    assert (sizes.context, sizes.kv_cache) == (None, ())
    assert "unheard-of" in sizes.notices[0]
    assert all(row.total_bytes == row.weights_bytes and row.buffer_bytes is None for row in sizes.types)


def test_devices_have_memory_and_a_source_and_are_found_by_words() -> None:
    assert len(devices()) > 40
    assert len({d.name for d in devices()}) == len(devices())
    assert all(d.memory_bytes % 2**30 == 0 and 2**31 < d.memory_bytes < 2**40 and d.source.startswith("https://") for d in devices())
    assert {d.kind for d in find_devices("mac")} == {"ram"}
    assert [d.memory_bytes >> 30 for d in find_devices("5090")] == [32]
    with pytest.raises(UsageError, match="GeForce RTX 4090"):
        find_devices("abacus")


def test_the_command_takes_both_kinds_of_units_and_names_the_best(wide: Path, command: Callable[..., Ran]) -> None:
    ran = command("size", wide, "--context", "8192", "--ram", "1GiB", "--vram", "1GB", "--hardware", "4090", "--json")
    assert ran.code == 0, ran.err
    value = json.loads(ran.out)
    assert value["best"] == {"ram": "F32", "vram": "F32", "GeForce RTX 4090": "F32"}
    assert value["context"] == 8192
    assert {row["name"] for row in value["kv_cache"]} == set(KV_TYPES)
    text = command("size", wide, "--ram", "100MB").out
    assert "ram: best is " in text
    assert "too large" in text
    assert "context: 4096 tokens (the model was made for 8192)" in text
    assert command("size", wide, "--ram", "lots").code == 2
    assert command("size", "7B", "--ram", "32GiB").code == 2


def test_without_wishes_a_count_is_sized_as_before() -> None:
    assert not isinstance(size("7B", SizeRequest()), ModelSizes)
