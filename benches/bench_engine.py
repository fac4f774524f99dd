"""Running models: `quantrs bench` against `llama-bench`, `quantrs eval` against `llama-perplexity`, on all CPUs.

Prompts and text generation are timed by the programs themselves, loading not included; evaluations are whole commands.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import quantrs as qr
from conftest import compare
from quantrs import _native
from synthetic import write_llama

ROOT = Path(__file__).parent.parent
# With AVX-512 VNNI llama.cpp is up to three times faster in prefill than without; Q4_0 it repacks when it loads a file.
VNNI = Path("/proc/cpuinfo").exists() and "avx512_vnni" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
PREFILL = {name: 1.5 if VNNI else 2.0 for name in ("Q4_1", "Q8_0", "Q4_K_M", "Q6_K", "Q2_K", "IQ4_XS")} | {
    "Q4_0": 1.1 if VNNI else 1.5,
    "F16": 1.0,
}
DECODE = dict.fromkeys(PREFILL, 1.1) | {"F16": 1.05}
THREADS = str(_native.default_threads())


@pytest.fixture(scope="module")
def float_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """0.24 G weights whose rows are multiples of 256."""
    return write_llama(tmp_path_factory.mktemp("model") / "F16.gguf", n_layers=4, hidden=2048, ffn=5632, n_vocab=8192)


def output_of(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("name", PREFILL)
def bench_speed(benchmark: BenchmarkFixture, peers: Path, float_model: Path, name: str) -> None:
    model = float_model.with_name(f"{name}.gguf")
    if not model.exists():
        qr.quantize_checkpoint(float_model, model, scheme=name)
    ours: dict[str, list[float]] = {"pp512": [], "tg128": []}
    theirs: dict[str, list[float]] = {"pp512": [], "tg128": []}

    def run_ours() -> None:
        options = ("-p", "512", "-n", "128", "-r", "2", "--threads", THREADS, "--json")
        for row in json.loads(output_of(sys.executable, "-m", "quantrs", "bench", model, *options)):
            ours[row["test"]].append(row["tokens_per_second"])

    def run_theirs() -> None:
        options = ("-p", "512", "-n", "128", "-r", "2", "-t", THREADS, "-o", "json")
        for row in json.loads(output_of(peers / "llama-bench", "-m", model, *options)):
            theirs["pp512" if row["n_prompt"] else "tg128"].append(row["avg_ts"])

    benchmark.pedantic(run_ours, setup=run_theirs, rounds=3)
    for test, n_tokens, wanted in (("pp512", 512, PREFILL[name]), ("tg128", 128, DECODE[name])):
        rates = statistics.median(ours[test]), statistics.median(theirs[test])
        note = f"{rates[0]:.0f} against {rates[1]:.0f} tokens/s, 0.24 G weights"
        compare(f"{test} {name}", n_tokens / rates[0], "llama-bench", n_tokens / rates[1], wanted=wanted, note=note)


@pytest.mark.parametrize("name", ["Q8_0", "Q4_K_M"])
def bench_eval(versus, peers: Path, tmp_path: Path, name: str) -> None:
    models = sorted((ROOT / "models").glob("*.gguf"))
    if not models:
        pytest.skip("there is no real model in models/; `make demo` puts one there")
    text = tmp_path / "text.txt"
    text.write_text("".join(page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").rglob("*.md"))), encoding="utf-8")
    model = tmp_path / f"{name}.gguf"
    qr.quantize_checkpoint(models[0], model, scheme=name, allow_requantize=True)
    chunks = "12"
    versus(
        f"eval {name}",
        lambda: output_of(sys.executable, "-m", "quantrs", "eval", model, "--text", text, "--chunks", chunks, "--threads", THREADS),
        "llama-perplexity",
        lambda: output_of(peers / "llama-perplexity", "-m", model, "-f", text, "--chunks", chunks, "-c", "512", "-t", THREADS),
        wanted=2,
        rounds=3,
        note=f"{models[0].name}, {chunks} chunks of 512",
    )
