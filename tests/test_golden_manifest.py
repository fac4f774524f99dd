"""The golden files are exactly those that the manifest names, unchanged, and free of what must not be published."""

import hashlib
import json
import sys
import zipfile
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

GOLDEN = Path(__file__).parent / "golden"
MANIFEST = tomllib.loads((GOLDEN / "manifest.toml").read_text(encoding="utf-8"))


def test_every_golden_file_is_in_the_manifest() -> None:
    present = {p.relative_to(GOLDEN).as_posix() for p in GOLDEN.rglob("*") if p.is_file()} - {"manifest.toml"}
    assert present == set(MANIFEST["file"]), "run tools/make_golden.py SRC"


@pytest.mark.parametrize("name", sorted(MANIFEST["file"]))
def test_golden_file_has_the_recorded_sha256(name: str) -> None:
    assert hashlib.sha256((GOLDEN / name).read_bytes()).hexdigest() == MANIFEST["file"][name]["sha256"]


def test_every_set_names_tool_commit_flags_seed_and_licence() -> None:
    for name, entry in MANIFEST["set"].items():
        empty = [key for key in ("tool", "commit", "flags", "seed", "licence") if not entry.get(key)]
        assert not empty, f"set {name}: {empty} missing"
    assert {entry["set"] for entry in MANIFEST["file"].values()} == set(MANIFEST["set"])


def test_golden_arrays_hold_no_gemma_rows() -> None:
    for path in GOLDEN.rglob("*.npz"):
        with zipfile.ZipFile(path) as archive:
            assert not [n for n in archive.namelist() if n.startswith("gemma_")], path.name
    # The checkpoints of hf and hf-gguf are random weights: there the word is the name of an architecture.
    for path in (path for path in GOLDEN.rglob("*.json") if path.relative_to(GOLDEN).parts[0] not in ("hf", "hf-gguf")):
        assert "gemma" not in json.dumps(json.loads(path.read_text(encoding="utf-8"))).lower(), path.name


def test_golden_files_stay_small() -> None:
    assert sum(p.stat().st_size for p in GOLDEN.rglob("*")) < 24_000_000
