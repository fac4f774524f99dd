"""The programs in examples/ run and say something sensible."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from conftest import GOLDEN, Ran

EXAMPLES = Path(__file__).parent.parent / "examples"
TINY = GOLDEN / "ggml" / "tiny" / "tiny-f16.gguf"


def test_compare_types_puts_more_bits_above_fewer(python: Callable[..., Ran]) -> None:
    for arguments in ((), (TINY, "blk.0.attn_q.weight")):
        ran = python(EXAMPLES / "compare_types.py", *arguments)
        assert ran.code == 0, ran.err
        names = [line.split()[0] for line in ran.out.splitlines()[1:]]
        order = [names.index(name) for name in ("f16", "q8_0", "q6_k", "q4_k", "q2_k")]
        assert order == sorted(order)


def test_quantize_model_reports_and_can_be_run_again(python: Callable[..., Ran], tmp_path: Path) -> None:
    for _ in range(2):
        ran = python(EXAMPLES / "quantize_model.py", TINY, tmp_path / "o.gguf")
        assert ran.code == 0, ran.err
        assert f"{(tmp_path / 'o.gguf').stat().st_size} bytes" in ran.out
    assert [p.name for p in tmp_path.iterdir()] == ["o.gguf"]


def test_read_tensors_prints_what_is_asked_for(python: Callable[..., Ran]) -> None:
    ran = python(EXAMPLES / "read_tensors.py", TINY, "output_norm.weight")
    assert ran.code == 0, ran.err
    assert "output_norm.weight: f32" in ran.out


def test_every_example_is_tested() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    assert all(f'"{path.name}"' in here for path in EXAMPLES.glob("*.py"))
