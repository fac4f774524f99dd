"""How fast a model runs: prompts (pp) and text, token by token (tg), in the shape that ``llama-bench`` made common.

Decoding reads every weight once per token, so its limit is how fast memory can be read. That is measured too, and each row of text
generation says which part of it was reached.
"""

import math
import random
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantrs import _native
from quantrs.errors import InputError, UsageError
from quantrs.schemes import FILE_TYPES
from quantrs.text import printable

if TYPE_CHECKING:
    from quantrs._native import Gguf, TensorInfo
    from quantrs.engine import Session

__all__ = ["BenchRow", "ModelBench", "bench_model", "weight_bytes_per_token"]

_CACHE_FOLDER = Path("/sys/devices/system/cpu/cpu0/cache")
_LEAST_BUFFER, _LARGEST_BUFFER = 1 << 28, 1 << 31


@dataclass(frozen=True)
class BenchRow:
    """One test."""

    test: str
    """``pp512``: a prompt of 512 tokens; ``tg128``: 128 tokens one by one; ``@ d1024``: after 1024 others."""
    n_prompt: int
    n_gen: int
    depth: int
    tokens_per_second: float
    """Mean of the repetitions."""
    std_dev: float
    """Of the repetitions."""
    samples: tuple[float, ...]
    """Tokens per second of each repetition."""
    weight_bytes_per_token: int | None
    """What decoding reads of the weights for each token; None for prompts, which use a weight many times once it was read."""
    bandwidth_fraction: float | None
    """`weight_bytes_per_token` times `tokens_per_second`, as part of the measured read bandwidth. Keys and values are not counted."""


@dataclass(frozen=True)
class ModelBench:
    """The tests of a model."""

    model: str
    """Architecture, weights, file type."""
    path: str
    file_bytes: int
    n_weights: int
    threads: int
    level: str
    read_bandwidth: float | None
    """Bytes per second that all threads read from a buffer larger than the caches; None when no row needs it."""
    rows: tuple[BenchRow, ...]

    def to_json(self) -> list[dict[str, object]]:
        """A JSON value: a list of rows, each with what it was measured on."""
        common = {key: value for key, value in asdict(self).items() if key != "rows"}
        return [asdict(row) | common for row in self.rows]

    def __str__(self) -> str:
        cells = [["model", "size", "params", "threads", "test", "t/s"]]
        for row in self.rows:
            speed = f"{row.tokens_per_second:.2f} ± {row.std_dev:.2f}"
            cells.append(
                [printable(self.model), _binary_size(self.file_bytes), _count(self.n_weights, " "), str(self.threads), row.test, speed]
            )
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        left = (0, 4)
        rule = "|".join(f" {'-' * (width - 1)}{'-' if i in left else ':'} " for i, width in enumerate(widths))
        lines = [
            "|".join(
                f" {cell.ljust(width) if i in left else cell.rjust(width)} "
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in cells
        ]
        lines = [f"|{line}|" for line in (lines[0], rule, *lines[1:])]
        return "\n".join([*lines, *self._bandwidth_lines()])

    def _bandwidth_lines(self) -> Iterator[str]:
        if self.read_bandwidth is None:
            return
        yield f"\n{self.threads} threads read memory at {self.read_bandwidth / 1e9:.1f} GB/s."
        for row in self.rows:
            if row.bandwidth_fraction is not None and row.weight_bytes_per_token is not None:
                megabytes = row.weight_bytes_per_token / 1e6
                yield f"{row.test} reads {megabytes:.1f} MB of weights a token: {row.bandwidth_fraction:.0%} of that."


def bench_model(
    path: str,
    *,
    n_prompts: Sequence[int] = (512,),
    n_gens: Sequence[int] = (128,),
    depths: Sequence[int] = (0,),
    repetitions: int = 5,
    threads: int | None = None,
    activations: str = "int8",
    kv_type: str | None = None,
    watch: Callable[[str], None] | None = None,
) -> ModelBench:
    """Time a model.

    Parameters
    ----------
    path : str
        GGUF model.
    n_prompts : sequence of int
        Lengths of prompts; 0 is left out.
    n_gens : sequence of int
        Numbers of tokens to go through one by one; 0 is left out.
    depths : sequence of int
        Tokens that are in the context before.
    repetitions : int
        Of each test, after a prompt or a token that is not counted.
    threads, activations, kv_type
        As `Session` takes them.
    watch : callable, optional
        Is given the name of each test before it begins.

    Raises
    ------
    InputError
        There is nothing to measure, a number is out of range, or the model cannot be run.
    """
    from quantrs.engine import Session

    if repetitions < 1:
        raise InputError(f"repetitions: found {repetitions}, expected 1 or more")
    if bad := [n for n in (*n_prompts, *n_gens, *depths) if n < 0]:
        raise InputError(f"found {bad[0]} tokens, expected 0 or more")
    tests = [(n, 0, d) for d in depths for n in n_prompts if n] + [(0, n, d) for d in depths for n in n_gens if n]
    if not tests:
        raise UsageError("there is nothing to measure: all numbers of tokens are 0")
    session = Session(
        path,
        threads=threads,
        activations=activations,  # type: ignore[arg-type]
        kv_type=kv_type,  # type: ignore[arg-type]
        n_ctx=max(max(pp, tg) + depth for pp, tg, depth in tests),
    )
    threads = session.engine.threads
    bandwidth = _measure_bandwidth(threads) if any(tg for _, tg, _ in tests) else None
    rows = []
    for n_prompt, n_gen, depth in tests:
        name = (f"pp{n_prompt}" if n_prompt else f"tg{n_gen}") + (f" @ d{depth}" if depth else "")
        if watch is not None:
            watch(name)
        samples = _time(session, n_prompt, n_gen, depth, repetitions)
        mean = statistics.fmean(samples)
        per_token = weight_bytes_per_token(session.gguf) if n_gen else None
        fraction = per_token * mean / bandwidth if per_token is not None and bandwidth else None
        std_dev = statistics.stdev(samples) if len(samples) > 1 else 0.0
        rows.append(BenchRow(name, n_prompt, n_gen, depth, mean, std_dev, tuple(samples), per_token, fraction))
    gguf = session.gguf
    return ModelBench(
        model=_label(gguf),
        path=session.path,
        file_bytes=gguf.file_size,
        n_weights=_n_weights(gguf),
        threads=threads,
        level=_native.level(),
        read_bandwidth=bandwidth,
        rows=tuple(rows),
    )


def weight_bytes_per_token(gguf: "Gguf") -> int:
    """Bytes of weights that decoding reads for one token.

    All but tables of which it takes a row, and those experts that a token does not go to.
    """
    architecture = gguf.get("general.architecture")
    n_experts, n_used = (gguf.get(f"{architecture}.expert{key}_count") for key in ("", "_used"))
    part = n_used / n_experts if isinstance(n_used, int) and isinstance(n_experts, int) and n_experts else 1.0
    names = {tensor.name for tensor in gguf.tensors}

    def read(tensor: "TensorInfo") -> float:
        if tensor.name == "position_embd.weight" or (tensor.name == "token_embd.weight" and "output.weight" in names):
            return tensor.nbytes / tensor.dims[-1]
        return tensor.nbytes * (part if re.search(r"_exps\.", tensor.name) else 1.0)

    return round(sum(map(read, gguf.tensors)))


def _time(session: "Session", n_prompt: int, n_gen: int, depth: int, repetitions: int) -> list[float]:
    """Tokens per second of each repetition."""
    engine, rng = session.engine, random.Random(0)

    def tokens(n: int) -> list[int]:
        return [rng.randrange(session.n_vocab) for _ in range(n)]

    engine.reset()
    if depth:
        engine.forward(tokens(depth))
    samples = []
    for i in range(repetitions + 1):
        engine.truncate(depth)
        prompt, steps = tokens(n_prompt), [[token] for token in tokens(n_gen if i else min(n_gen, 1))]
        start = time.perf_counter()
        if prompt:
            engine.forward(prompt)
        for step in steps:
            engine.forward(step)
        if i:
            samples.append((n_prompt + n_gen) / (time.perf_counter() - start))
    return samples


def _measure_bandwidth(threads: int) -> float:
    n_bytes = min(max(_LEAST_BUFFER, 4 * _last_cache_bytes()), _LARGEST_BUFFER)
    return _native.read_bandwidth(n_bytes, threads=threads)


def _last_cache_bytes() -> int:
    """Of the largest cache that the system tells of; 0 when it does not."""
    sizes = [0]
    for path in _CACHE_FOLDER.glob("index*/size"):
        found = re.fullmatch(r"([0-9]+)([KMG]?)\s*", path.read_text(encoding="ascii"))
        if found:
            sizes.append(int(found[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[found[2]])
    return max(sizes)


def _label(gguf: "Gguf") -> str:
    number = gguf.get("general.file_type")
    file_type = next((row.name for row in FILE_TYPES if row.id is not None and row.id == number), None)
    return " ".join([str(gguf.get("general.architecture")), _count(_n_weights(gguf), ""), *([file_type] if file_type else [])])


def _n_weights(gguf: "Gguf") -> int:
    return sum(math.prod(tensor.dims) for tensor in gguf.tensors)


def _count(n: int, gap: str) -> str:
    """Weights in thousands, millions or billions.

    Examples
    --------
    >>> _count(134_515_008, " "), _count(8_030_261_248, ""), _count(950, "")
    ('134.52 M', '8.03B', '950')
    """
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if n >= unit:
            return f"{n / unit:.2f}{gap}{name}"
    return str(n)


def _binary_size(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.2f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.2f} MiB"
