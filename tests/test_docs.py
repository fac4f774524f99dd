"""The documentation holds: its Python examples run, its links lead somewhere, its generated parts are current."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import quantrs
from speaking_model import write_speaker

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
MODULES = sorted(
    m.name for m in pkgutil.walk_packages(quantrs.__path__, "quantrs.") if m.name not in ("quantrs.__main__", "quantrs._native")
)


def put_models(folder: Path) -> None:
    """What examples call ``model.gguf``, and ``chat.gguf`` for those that need a tokenizer."""
    (folder / "model.gguf").symlink_to(ROOT / "tests" / "golden" / "ggml" / "tiny" / "tiny-f16.gguf")
    write_speaker(folder / "chat.gguf", "\nHi!", "o, bye")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_examples_of_a_page_run_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page share their names, as a reader would type them. Doctest blocks also have their output compared."""
    monkeypatch.chdir(tmp_path)
    put_models(tmp_path)
    names: dict[str, object] = {}
    for language, code in FENCE.findall(page.read_text(encoding="utf-8")):
        if language != "python":
            continue
        if ">>>" in code:
            example = doctest.DocTestParser().get_doctest(code, names, name_of(page), name_of(page), 0)
            found = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
            found.run(example, clear_globs=False)
            assert not found.failures, code
            names = example.globs
        else:
            exec(compile(code, name_of(page), "exec"), names)


@pytest.mark.parametrize("module", ["quantrs", *MODULES])
def test_docstring_examples_of_a_module_run(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put_models(tmp_path)
    result = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_between_pages_lead_to_files(page: Path) -> None:
    targets = [x.split("#")[0] for x in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in x]
    missing = [x for x in targets if x and not (page.parent / x).exists()]
    assert not missing


def test_generated_parts_are_current() -> None:
    done = subprocess.run([sys.executable, ROOT / "tools" / "make_docs.py", "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_page_is_in_the_site_map() -> None:
    listed = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    assert {p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md")} == listed


def test_every_public_name_has_a_docstring() -> None:
    assert not [x for x in quantrs.__all__ if x != "__version__" and not getattr(quantrs, x).__doc__]
