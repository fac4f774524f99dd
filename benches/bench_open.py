"""Opening a file with 150,000 tokens and as many merges against gguf-py's reader."""

from pathlib import Path

import pytest
from gguf import GGUFReader

import quantrs as qr
from synthetic import write_llama


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("open") / "vocabulary.gguf"
    return write_llama(path, n_layers=1, hidden=256, ffn=512, n_vocab=150_000, merges=150_000)


def bench_open(versus, vocabulary: Path) -> None:
    versus(
        "open", lambda: qr.open(vocabulary).close(), "gguf-py", lambda: GGUFReader(vocabulary), wanted=300, note="150k tokens and merges"
    )
