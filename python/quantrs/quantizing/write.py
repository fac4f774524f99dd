"""A planned folder is written: its tensors under the journal that every long job has, and the files beside them."""

from pathlib import Path
from typing import TYPE_CHECKING

from quantrs import output
from quantrs.huggingface.output_folder import INDEX, folder_to_fill, index_of, json_bytes, write_small_files
from quantrs.huggingface.stored_types import dtype_setting
from quantrs.pipeline import carry_out
from quantrs.quantizing.folder_formats import FOLDER_FORMATS

if TYPE_CHECKING:
    from quantrs.progress import JobProgress, Watcher
    from quantrs.quantizing.plan import FolderPlan
    from quantrs.quantizing.source import HfModel
    from quantrs.report import Report
    from quantrs.writer import Maker

__all__ = ["journal_place", "write_planned"]


def journal_place(dst: Path) -> Path:
    """What the journal is named after."""
    return dst / "model.safetensors"


def write_planned(
    model: "HfModel",
    plan: "FolderPlan",
    dst: Path,
    *,
    maker: "Maker",
    method: str,
    started: float,
    threads: int | None,
    force: bool,
    resume: bool,
    measure: bool,
    watcher: "Watcher",
    progress: "JobProgress",
) -> "Report":
    """Write what is planned.

    Parameters
    ----------
    maker : Maker
        Makes the quantized tensors, and counts on `progress`.
    method : str
        That the layers are quantized by, for ``quantization_config``; empty if they were before.
    measure : bool
        Compare the tensors that are converted without `maker`.

    Raises
    ------
    InputError, FormatError
        Something cannot be written; nothing is left behind.
    FileError
        Reading or writing failed. What is done so far is kept for `resume`.
    """
    small = _small_files(model, plan, method)
    with folder_to_fill(dst, small, [Path(file.path).name for file in plan.plan.files], force=force or resume):
        output.check_names(plan.plan, model.tensors.files)
        report = carry_out(
            model.tensors,
            plan.plan,
            journal_place(dst),
            started=started,
            threads=threads,
            force=force,
            resume=resume,
            measure=measure,
            watcher=watcher,
            maker=maker,
            progress=progress,
        )
        write_small_files(dst, small)
    return report


def _small_files(model: "HfModel", plan: "FolderPlan", method: str) -> dict[str, bytes]:
    """What lies beside the weights, by name."""
    layers = {layer.linear.name: layer.scheme for layer in plan.layers}
    quantization = FOLDER_FORMATS[plan.scheme.format].config(plan.scheme, layers, plan.unquantized, method)
    config = model.config | dtype_setting(model.config, plan.dtype) | {"quantization_config": quantization}
    small = {**model.small_files, "config.json": json_bytes(config)}
    files = plan.plan.files
    if len(files) > 1:
        small[INDEX] = json_bytes(index_of((t.name, Path(file.path).name, t.nbytes) for file in files for t in file.tensors))
    return small
