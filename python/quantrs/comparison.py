"""``quantrs verify A B``: are two files or folders the same model?"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantrs import _native
from quantrs import threads as thread_counts
from quantrs.errors import QuantrsError
from quantrs.metadata_difference import metadata_differences
from quantrs.open_model import open_model
from quantrs.progress import Watcher, run_watched
from quantrs.report import tensor_group
from quantrs.tensor_difference import Counter, TensorDifference, compare_tensors
from quantrs.text import human_bytes, printable, table
from quantrs.verify import Finding

if TYPE_CHECKING:
    from os import PathLike

    from quantrs._native import Gguf, TensorInfo
    from quantrs.tokenization import Tokenizer

__all__ = ["Comparison", "GroupDifference", "compare"]

_TOKENS_OF_VOCABULARY = 4096
_TOKENS_PER_TEXT = 32
_MAX_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class GroupDifference:
    """How far all tensors of one group are from each other."""

    group: str
    """``attn_q``, ``ffn_down`` ..."""
    types: tuple[str, ...]
    """``F16/Q4_K``: in A and in B."""
    tensors: int
    relative: float
    """Root of (sum of squared differences / sum of squared values of the finer one), over the rows whose bytes are not equal."""
    limit: float
    """What the types allow, on the same scale."""
    max: float
    """Largest absolute difference."""
    differing: int
    """Tensors with rows beyond the limit."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The outcome of `compare`."""

    a: str
    b: str
    tensors: int
    """Tensors that both have in the same shape."""
    nbytes: int
    """Bytes of data that were looked at, of both."""
    texts: int
    """Texts that both tokenizers were given."""
    groups: tuple[GroupDifference, ...]
    findings: tuple[Finding, ...]
    """Why they are not the same model."""
    notices: tuple[str, ...]
    """What differs besides."""

    def to_json(self) -> dict[str, object]:
        """A JSON value with all fields. What is not finite becomes null."""
        value = asdict(self)
        value["groups"] = [
            {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(group).items()} for group in self.groups
        ]
        return value

    def __str__(self) -> str:
        verdict = f"not the same: {len(self.findings)} findings" if self.findings else "the same model"
        head = f"{printable(self.a)} and {printable(self.b)}: {verdict}; {self.tensors} tensors, {human_bytes(self.nbytes)} read"
        texts = f", {self.texts} texts tokenized" if self.texts else ""
        rows = [
            [g.group, " ".join(g.types), str(g.tensors), f"{g.relative:.3g}", f"{g.limit:.3g}", f"{g.max:.3g}", str(g.differing or "")]
            for g in self.groups
        ]
        return f"{head}{texts}\n\n" + table(["group", "types", "tensors", "relative", "limit", "max", "differ"], rows, right="23456")


def compare(
    a: "str | PathLike[str]",
    b: "str | PathLike[str]",
    *,
    pre: str | None = None,
    arch: str | None = None,
    threads: int | None = None,
    watcher: Watcher | None = None,
) -> Comparison:
    """Compare two models: GGUF files or checkpoint folders, in any types.

    Findings are tensors that only one has, or whose shapes or values differ by more than their types explain; hyperparameters that
    differ; and texts that are tokenized differently. Everything else that differs is a notice.

    Parameters
    ----------
    a, b : path-like
        As `open_model` takes them.
    pre, arch : str, optional
        Likewise, for those that are folders.
    threads : int, optional
        One per CPU when not given. Results do not depend on it; each takes some 30 MB.

    Raises
    ------
    FileError, FormatError, InputError
        One of them cannot be read.

    Examples
    --------
    >>> from quantrs.comparison import compare
    >>> compare("model.gguf", "model.gguf").findings
    ()
    """
    first, second = (_open(path, pre, arch) for path in (a, b))
    threads = thread_counts.checked(threads) or _native.default_threads()
    pairs, findings, nbytes = [], [], 0
    by_name = {tensor.name: tensor for tensor in second.tensors}
    for tensor in first.tensors:
        other = by_name.pop(tensor.name, None)
        if other is None:
            findings.append(Finding(where=tensor.name, what="only A has it"))
        elif _shape(tensor) != _shape(other):
            findings.append(Finding(where=tensor.name, what=f"the shape is {_shape(tensor)} in A, {_shape(other)} in B"))
        else:
            pairs.append((tensor, other))
            nbytes += tensor.nbytes + other.nbytes
    findings += [Finding(where=name, what="only B has it") for name in by_name]

    progress = Counter()
    differences = run_watched(
        lambda: compare_tensors(first, second, pairs, threads=threads, progress=progress),
        watcher=watcher or Watcher(),
        progress=progress,
        total_bytes=nbytes,
    )
    findings += [Finding(where=d.name, what=d.finding) for d in differences if d.finding]
    hyperparameters, notices = metadata_differences(first, second)
    findings += hyperparameters
    n_texts, of_tokenizer, told = _tokenizer_differences(first, second)
    return Comparison(
        a=str(a),
        b=str(b),
        tensors=len(pairs),
        nbytes=nbytes,
        texts=n_texts,
        groups=_groups(differences),
        findings=(*findings, *of_tokenizer),
        notices=(*notices, *told),
    )


def _open(path: "str | PathLike[str]", pre: str | None, arch: str | None) -> "Gguf":
    """The options are for those of the two that are folders."""
    is_folder = Path(path).is_dir()
    return open_model(path, pre=pre if is_folder else None, arch=arch if is_folder else None)


def _shape(tensor: "TensorInfo") -> tuple[int, ...]:
    """Rows first, without leading axes of one."""
    dims = list(tensor.dims)
    while len(dims) > 1 and dims[-1] == 1:
        dims.pop()
    return tuple(reversed(dims))


def _groups(differences: list[TensorDifference]) -> tuple[GroupDifference, ...]:
    groups: dict[str, list[TensorDifference]] = {}
    for difference in differences:
        groups.setdefault(tensor_group(difference.name), []).append(difference)
    return tuple(_group(name, members) for name, members in groups.items())


def _group(name: str, members: list[TensorDifference]) -> GroupDifference:
    squared, squared_error, squared_limit = (
        math.fsum(getattr(member, field) for member in members) for field in ("squared", "squared_error", "squared_limit")
    )

    def relative(value: float) -> float:
        return math.sqrt(value / squared) if squared else (math.inf if value else 0.0)

    return GroupDifference(
        group=name,
        types=tuple(dict.fromkeys(member.types for member in members)),
        tensors=len(members),
        relative=relative(squared_error),
        limit=relative(squared_limit),
        max=max(member.max for member in members),
        differing=sum(bool(member.finding) for member in members),
    )


def _tokenizer_differences(a: "Gguf", b: "Gguf") -> tuple[int, list[Finding], list[str]]:
    """Texts compared, findings, notices."""
    from quantrs.tokenization import Tokenizer

    without = [label for label, gguf in (("A", a), ("B", b)) if gguf.array_len("tokenizer.ggml.tokens") is None]
    if without:
        return 0, [], [f"{' and '.join(without)} without a vocabulary: tokenizers are not compared"]
    try:
        first, second = Tokenizer.of_gguf(a), Tokenizer.of_gguf(b)
    except QuantrsError as error:
        return 0, [], [f"tokenizers are not compared: {error}"]
    texts = list(_texts(first))
    wrong = [text for text in texts if first.encode(text) != second.encode(text)]
    if not wrong:
        return len(texts), [], []
    text = min(wrong, key=len)
    found, other = first.encode(text), second.encode(text)
    at = next((i for i, (x, y) in enumerate(zip(found, other, strict=False)) if x != y), min(len(found), len(other)))
    what = (
        f"{len(wrong)} of {len(texts)} texts are tokenized differently: {text[:60]!r} from token {at} on as "
        f"{found[at : at + _MAX_SHOWN]} by A, {other[at : at + _MAX_SHOWN]} by B"
    )
    return len(texts), [Finding(where="tokenizer", what=what)], []


def _texts(tokenizer: "Tokenizer") -> Iterator[str]:
    """Hard texts, and what tokens of the whole vocabulary stand for."""
    from quantrs.tokenization.hard_texts import HARD_TEXTS

    yield from HARD_TEXTS
    step = max(1, tokenizer.n_tokens // _TOKENS_OF_VOCABULARY)
    pieces = [tokenizer.piece(i, special=True).decode("utf-8", "replace") for i in range(0, tokenizer.n_tokens, step)]
    for i in range(0, len(pieces), _TOKENS_PER_TEXT):
        yield "".join(pieces[i : i + _TOKENS_PER_TEXT])
        yield " ".join(pieces[i : i + _TOKENS_PER_TEXT])
