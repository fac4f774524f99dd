"""Carries a plan out: part files are filled tensor by tensor, the journal follows, whole files get their names."""

import math
import zlib
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from quantrs import _native
from quantrs.errors import FileError, FormatError, InputError
from quantrs.fingerprint import source_stamp
from quantrs.journal import Record, part_path
from quantrs.output import discard_parts, publish

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from quantrs.journal import Job, Journal
    from quantrs.plan import Plan, TensorPlan

__all__ = ["Errors", "Key", "Made", "Maker", "Writer"]

Key = tuple[int, str]
"""Index of the output file, name of the tensor."""


Errors = tuple[float, float, float]
"""Sum of squared differences from the source, sum of its squares, largest difference."""


class Made(NamedTuple):
    """A tensor's data."""

    key: Key
    data: bytes
    errors: Errors | None = None
    """Of the weights that it holds, where they were compared."""


class Maker(Protocol):
    """Computes the tensors that a plan has as `TensorPlan.made`."""

    def make(self, todo: "Collection[Key]") -> "Iterator[Made]":
        """Each of `todo`, in any order; what is not asked for may come too, and is the same as it was.

        Whatever was yielded before is written and in the journal when the next one is asked for.
        """


@dataclass(frozen=True, kw_only=True)
class Writer:
    """One job, under its journal's lock."""

    source: "_native.Gguf"
    plan: "Plan"
    job: "Job"
    journal: "Journal"
    done: "dict[Key, Record]"
    """Records of an earlier run; `run` adds to them."""
    progress: "_native.Progress"
    threads: int | None
    measure: bool
    maker: Maker | None = None

    @property
    def outputs(self) -> tuple[Path, ...]:
        """Final paths."""
        return tuple(Path(file.path) for file in self.plan.files)

    def todo_bytes(self) -> int:
        """Source bytes of the tensors that are not done; of those that are made, if any are."""
        todo = [tensor for key, tensor in self._tensors() if key not in self.done]
        return sum(tensor.source_bytes for tensor in todo if tensor.made) or sum(tensor.source_bytes for tensor in todo)

    def written(self) -> "list[tuple[TensorPlan, Record]]":
        """All tensors with their records, in file order; after `run`."""
        return [(tensor, self.done[key]) for key, tensor in self._tensors()]

    def run(self, *, force: bool) -> None:
        """Write what is not done, sync, rename, and remove the journal.

        Raises
        ------
        InputError, FormatError
            The source holds something that cannot be written: part files and journal are deleted.
        FileError, Cancelled
            They are kept, so that the job can be resumed (but not if the part files could not be made in the first place).
        """
        try:
            if not (self.done and self.journal.complete):
                with ExitStack() as stack:
                    self._fill(self._open_parts(stack))
                self._check_source()
                self.journal.set_complete(sync=len(self.plan.files) > 1)
            publish(self.plan, force=force)
        except (InputError, FormatError):
            self.discard()
            raise
        self.journal.remove()

    def discard(self) -> None:
        """Delete part files and journal."""
        discard_parts(self.outputs)
        self.journal.remove()

    def _tensors(self) -> "list[tuple[Key, TensorPlan]]":
        return [((i, tensor.name), tensor) for i, file in enumerate(self.plan.files) for tensor in file.tensors]

    def _open_parts(self, stack: ExitStack) -> "list[_native.PartFile]":
        """Part files of all outputs before any is filled, so that a disk without room says so at once."""
        fresh = not self.done
        if fresh:
            self.journal.start(self.job)
        else:
            self.journal.resume()
        open_part = _native.PartFile.create if fresh else _native.PartFile.reopen
        parts = []
        try:
            for output, file in zip(self.outputs, self.plan.files, strict=True):
                parts.append(open_part(part_path(output), file.file_bytes))
                stack.callback(parts[-1].close)
        except FileError:
            if fresh:
                stack.close()
                self.discard()
            raise
        return parts

    def _fill(self, parts: "list[_native.PartFile]") -> None:
        sources = _native.Sources(self.source)
        self._drop_damaged(parts)
        for part, file in zip(parts, self.plan.files, strict=True):
            part.write(0, file.header)
        for (index, name), tensor in self._tensors():
            if (index, name) in self.done or tensor.made:
                continue
            written = self._write_tensor(parts[index], sources, tensor)
            self._note(Record(file=index, tensor=name, crc32=written.crc32, clipped_blocks=written.clipped_blocks, errors=_errors(written)))
        self._fill_made(parts)
        for part in parts:
            part.sync()

    def _fill_made(self, parts: "list[_native.PartFile]") -> None:
        made = {key: tensor for key, tensor in self._tensors() if tensor.made}
        todo = [key for key in made if key not in self.done]
        if not todo:
            return
        if self.maker is None:
            raise ValueError("the plan has tensors to be made, and nothing that makes them")
        for key, data, errors in self.maker.make(todo):
            if key in self.done:
                continue
            tensor = made[key]
            if len(data) != tensor.nbytes:
                raise ValueError(f"{tensor.name}: {len(data)} bytes were made, {tensor.nbytes} are planned")
            parts[key[0]].write(tensor.offset, data)
            self._note(Record(file=key[0], tensor=key[1], crc32=zlib.crc32(data), clipped_blocks=0, errors=errors))

    def _note(self, record: Record) -> None:
        self.journal.add(record)
        self.done[record.file, record.tensor] = record

    def _drop_damaged(self, parts: "list[_native.PartFile]") -> None:
        """Forget records whose bytes are not on disk: a power failure can lose writes that the journal knows of."""
        for (index, name), tensor in self._tensors():
            record = self.done.get((index, name))
            if record is not None and parts[index].checksum(tensor.offset, tensor.nbytes) != record.crc32:
                del self.done[index, name]

    def _write_tensor(self, part: "_native.PartFile", sources: "_native.Sources", tensor: "TensorPlan") -> "_native.TensorWritten":
        return part.write_tensor(
            tensor.offset,
            tensor.target_type,
            sources,
            tensor.source,
            name=tensor.imatrix_name or tensor.name,
            imatrix=self.plan.imatrix if tensor.imatrix_name else None,
            threads=self.threads,
            measure=self.measure and not tensor.copied,
            progress=self.progress,
        )

    def _check_source(self) -> None:
        if source_stamp(self.source) != self.job.source:
            raise InputError(f"{self.source.files[0]}: the source was changed while it was being read; start again")


def _errors(written: "_native.TensorWritten") -> Errors | None:
    if math.isnan(written.sum_squared_error):
        return None
    return written.sum_squared_error, written.sum_squared, written.max_error
