"""``quantrs verify``: look for everything in a file that a reader could stumble over."""

from dataclasses import asdict, dataclass
from os import PathLike
from typing import TYPE_CHECKING

from quantrs import _native, block_types
from quantrs import threads as thread_counts
from quantrs.errors import Cancelled, FileError, FormatError
from quantrs.open_model import open_model
from quantrs.progress import Watcher, run_watched

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Finding", "Verification", "verify"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that is wrong."""

    where: str
    """``header``, a key or a tensor."""
    what: str


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The outcome of `verify`."""

    files: tuple[str, ...]
    tensors: int
    """Tensors whose data was looked at."""
    nbytes: int
    """Bytes of data that were looked at."""
    findings: tuple[Finding, ...]
    notices: tuple[str, ...]
    """Odd, but harmless to a reader."""

    def to_json(self) -> dict[str, object]:
        """A JSON value with all fields."""
        return asdict(self)


def verify(
    path: "str | PathLike[str]",
    *,
    pre: str | None = None,
    arch: str | None = None,
    threads: int | None = None,
    watcher: Watcher | None = None,
) -> Verification:
    """Check a GGUF file, a split model or a checkpoint folder, from the first byte to the last.

    The header is checked by opening it: bounds, overlaps, alignment, sizes, duplicates. Then come the strings, which must be
    UTF-8, the types, which must be known, and the data: no scale and no value may be infinite or NaN.

    Raises
    ------
    FileError
        The file cannot be read. A damaged file is a finding, not an error.
    InputError
        A folder holds a model that is not known; see `quantrs.open_model.open_model`, also for `pre` and `arch`.

    Examples
    --------
    >>> from quantrs.verify import verify
    >>> verify("model.gguf").findings
    ()
    """
    try:
        gguf = open_model(path, pre=pre, arch=arch)
    except FormatError as error:
        return Verification(files=(str(path),), tensors=0, nbytes=0, findings=(Finding(where="header", what=str(error)),), notices=())
    threads = thread_counts.checked(threads)
    progress = _Progress()
    known = [t for t in gguf.tensors if t.type_name is not None and block_types.find(t.type_name).can_dequantize]

    def check() -> list[Finding]:
        return [*_bad_strings(gguf), *_unknown_types(gguf), *_bad_data(_native.Sources(gguf), known, threads, progress)]

    total_bytes = sum(t.nbytes for t in known)
    findings = run_watched(check, watcher=watcher or Watcher(), progress=progress, total_bytes=total_bytes)
    return Verification(
        files=tuple(gguf.files), tensors=len(known), nbytes=total_bytes, findings=tuple(findings), notices=tuple(gguf.notices)
    )


class _Progress:
    """Counts tensors' bytes; the check itself runs tensor by tensor."""

    def __init__(self) -> None:
        self.cancelled = False
        self._done = 0

    @property
    def done(self) -> int:
        return self._done

    def add(self, n_bytes: int) -> None:
        self._done += n_bytes

    def cancel(self) -> None:
        self.cancelled = True


def _bad_strings(gguf: _native.Gguf) -> "Iterator[Finding]":
    for key in gguf.keys():
        if "string" not in (gguf.value_type(key) or ""):
            continue
        value = gguf.get(key)
        texts = value if isinstance(value, list) else [value]
        bad = [i for i, text in enumerate(texts) if isinstance(text, str) and not _is_text(text)]
        if bad:
            where = f" (element {bad[0]}, {len(bad)} in all)" if isinstance(value, list) else ""
            yield Finding(where=key, what=f"found a string that is not UTF-8{where}; a tokenizer that expects text may fail on it")


def _is_text(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unknown_types(gguf: _native.Gguf) -> "Iterator[Finding]":
    for tensor in gguf.tensors:
        if tensor.type_name is None:
            yield Finding(
                where=tensor.name, what=f"found the type id {tensor.type_id}, which this version does not know; its data was not checked"
            )


def _bad_data(
    sources: _native.Sources, tensors: "list[_native.TensorInfo]", threads: int | None, progress: _Progress
) -> "Iterator[Finding]":
    for tensor in tensors:
        if progress.cancelled:
            raise Cancelled("the check was cancelled")
        if tensor.nbytes:
            try:
                text = _native.check_tensor(sources, tensor, threads=threads)
            except (FileError, FormatError) as error:
                text = str(error)
            if text:
                yield Finding(where=tensor.name, what=text)
        progress.add(tensor.nbytes)
