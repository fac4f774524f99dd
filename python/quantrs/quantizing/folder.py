"""The flow of quantizing a model into a checkpoint folder, on one screen."""

import hashlib
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from quantrs.calibration.coverage import Coverage
from quantrs.calibration.folding import tensors_of
from quantrs.calibration.hidden_states import HiddenStates
from quantrs.calibration.options import CalibrationOptions
from quantrs.conversion import DEFAULT_SHARD_BYTES
from quantrs.errors import InputError, UsageError
from quantrs.families import graph_of
from quantrs.families.scale_groups import scale_groups
from quantrs.fingerprint import fingerprint
from quantrs.methods import METHODS
from quantrs.plan import Plan
from quantrs.progress import JobProgress
from quantrs.quantizing.blocks import BlockMaker
from quantrs.quantizing.layers import LayerMaker
from quantrs.quantizing.linears import find_linears, stored_tensors
from quantrs.quantizing.plan import choose, plan_folder
from quantrs.quantizing.source import HfModel
from quantrs.quantizing.write import journal_place, write_planned

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from os import PathLike

    import numpy as np
    from numpy.typing import NDArray

    from quantrs.options import QuantizeOptions
    from quantrs.progress import Watcher
    from quantrs.quantizing.plan import Chosen
    from quantrs.quantizing.schemes import FolderScheme
    from quantrs.report import Report

__all__ = ["planned_folder", "quantize_folder"]

DEFAULT_SEQUENCES = 128


def quantize_folder(
    src: "str | PathLike[str]",
    dst: Path,
    scheme: "FolderScheme",
    options: "QuantizeOptions",
    *,
    calibration: CalibrationOptions | None,
    threads: int | None,
    force: bool,
    resume: bool,
    watcher: "Watcher",
) -> "Report":
    """Write `dst`, a folder of quantized weights.

    Raises
    ------
    UsageError, InputError, FormatError
        The job cannot be done; nothing is left behind.
    FileError
        Reading or writing failed. What is done so far is kept for `resume`.
    """
    started = time.perf_counter()
    job = _Job(str(src), dst, scheme, options, calibration)
    progress = JobProgress(makes=True)
    maker = job.maker(progress, threads=threads, resume=resume)
    for text in job.notices:
        watcher.notice(text)
    report = write_planned(
        job.model,
        job.plan,
        dst,
        maker=maker,
        method=job.method_name,
        started=started,
        threads=threads,
        force=force,
        resume=resume,
        measure=False,
        watcher=watcher,
        progress=progress,
    )
    notices = tuple(_notices(maker)) if isinstance(maker, BlockMaker) else ()
    for text in notices:
        watcher.notice(text)
    notices = (*job.notices, *notices)
    # An earlier run may have been killed between its last tensor and its end.
    HiddenStates.discard(journal_place(dst))
    return replace(report, notices=(*report.notices, *notices))


def _notices(maker: BlockMaker) -> "Iterator[str]":
    """What calibration could say nothing of."""
    for text in Coverage.of(maker.expert_tokens).notices():
        yield f"{text}; these were rounded to nearest"
    if maker.without_inputs:
        first, *more = maker.without_inputs
        others = f" and {len(more)} others" if more else ""
        yield f"{first}{others}: inputs were 0 in all of the calibration; rounded to nearest"


def planned_folder(src: "str | PathLike[str]", scheme: "FolderScheme", options: "QuantizeOptions") -> Plan:
    """The plan that `quantize_folder` would carry out.

    Raises
    ------
    UsageError, InputError, FormatError, FileError
        As `quantize_folder`, where it can be told without calibration data.
    """
    return _Job(str(src), Path(scheme.name), scheme, options, None, with_data=False).plan.plan


class _Job:
    """Everything that is known before the first tensor is read."""

    def __init__(
        self,
        src: str,
        dst: Path,
        scheme: "FolderScheme",
        options: "QuantizeOptions",
        calibration: CalibrationOptions | None,
        *,
        with_data: bool = True,
    ) -> None:
        self.dst, self.scheme = dst, scheme
        self.method_name = _method_name(scheme, options, calibration)
        self.method = METHODS[self.method_name]
        self.calibration = calibration or CalibrationOptions()
        self.model = HfModel.open(src, pre=options.pre, arch=options.arch)
        if self.method.needs and self.model.gguf is None:
            raise InputError(
                f"{src}: {self.method_name} has to run the model, which cannot be done; --method rtn needs not. {self.model.why_not}"
            )
        found = self.model.quantized
        if found is not None and not options.allow_requantize:
            raise InputError(
                f"{src}: {found.name} is quantized already, and would be a second time, which loses quality; start from the model in F16, "
                "BF16 or F32, or pass --allow-requantize"
            )
        self.stored = stored_tensors(self.model)
        linears = find_linears(self.model, self.stored)
        chosen = choose(self.model, linears, scheme, options)
        ordered = next((layer for layer in chosen.values() if layer.scheme.desc_act and self.method_name != "gptq"), None)
        if ordered is not None:
            raise UsageError(f"{ordered.why}: only gptq has an activation order, found --method {self.method_name}; leave -act out")
        self.ids = self._calibration_data() if with_data else None
        self.plan = plan_folder(
            self.model,
            scheme,
            options,
            dst,
            linears=linears,
            chosen=chosen,
            scaled=self._scaled(chosen),
            calibration=self._calibration_hash(),
            max_shard_bytes=DEFAULT_SHARD_BYTES,
        )

    @property
    def notices(self) -> tuple[str, ...]:
        """What a user should know before the work starts."""
        if self.ids is None or self.calibration.text is not None:
            return ()
        n, length = self.ids.shape
        return (
            f"calibrating on {n} sequences of {length} tokens of the text that comes with quantrs; --calib FILE takes one like your own",
        )

    def _calibration_hash(self) -> str | None:
        if self.ids is None:
            return None
        return _hash(f"{self.calibration.sequential} {self.ids.shape}".encode() + self.ids.tobytes())

    def _calibration_data(self) -> "NDArray[np.int32] | None":
        """Sequences of token ids, if the method wants some; read before anything is made, so that bad ones stop the job at once."""
        if not self.method.needs or self.model.gguf is None:
            return None
        from quantrs.calibration.sequences import read_sequences

        return read_sequences(self.calibration, self.model.gguf, at_most=DEFAULT_SEQUENCES)

    def maker(self, progress: JobProgress, *, threads: int | None, resume: bool) -> "LayerMaker | BlockMaker":
        """What makes the quantized tensors."""
        if self.ids is None or self.model.gguf is None:
            return LayerMaker(model=self.model, plan=self.plan, progress=progress, threads=threads)
        from quantrs.calibration.blocks import Blocks

        outside = next((layer.linear.name for layer in self.plan.layers if layer.linear.block is None), None)
        if outside is not None:
            raise InputError(f"{outside}: is in no block, so that calibration says nothing of it; add --skip, or use --method rtn")
        return BlockMaker(
            model=self.model,
            plan=self.plan,
            method=self.method,
            blocks=Blocks(self.model.gguf, n_ctx=self.ids.shape[1], threads=threads),
            ids=self.ids,
            destination=journal_place(self.dst),
            job=_hash(repr(fingerprint(self.model.tensors, self.plan.plan)).encode("utf-8", "surrogateescape")),
            memory_budget=self.calibration.memory_budget,
            resume=resume,
            stored=self.stored,
            sequential=self.calibration.sequential,
            min_coverage=self.calibration.min_coverage,
            progress=progress,
            threads=threads,
        )

    def _scaled(self, chosen: "Mapping[str, Chosen]") -> list[str]:
        """Tensors that are not quantized, and that the method multiplies."""
        if self.method.transform is None or self.model.gguf is None:
            return []
        graph, _ = graph_of(self.model.gguf)
        names = {name for block in graph.blocks for group in scale_groups(block) for name in tensors_of(group)}
        changed = (found.tensor.name for (name, _), found in self.stored.items() if name in names)
        return [name for name in changed if name.removesuffix(".weight") not in chosen]


def _method_name(scheme: "FolderScheme", options: "QuantizeOptions", calibration: CalibrationOptions | None) -> str:
    """What was asked for, or what suits the format.

    Raises
    ------
    UsageError
        There is no such method, or it does not go with the rest.
    """
    name = options.method or _usual_method(scheme)
    if name not in METHODS:
        raise UsageError(f"--method {name}: expected one of {', '.join(METHODS)}")
    if scheme.layer.desc_act and name != "gptq":
        raise UsageError(f"--method {name}: only gptq has an activation order; leave -act out of {scheme.name}")
    if scheme.layer.value_type == "float" and name in ("awq", "gptq"):
        raise UsageError(f"--to {scheme.name} with --method {name}: it finds integers, and these are floats; take rtn or smoothquant")
    if calibration is not None and not METHODS[name].needs:
        raise UsageError(f"--to {scheme.name} with --method {name} uses no calibration; leave --calib out, or name another method")
    return name


def _usual_method(scheme: "FolderScheme") -> str:
    if scheme.format == "awq":
        return "awq"
    return "rtn" if scheme.layer.value_type == "float" else "gptq"


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
