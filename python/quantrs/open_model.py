"""Any model that can be read, as one kind of thing: a GGUF header, whether a file holds it or a checkpoint folder was assembled into it."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from quantrs import _native
from quantrs.errors import FileError, InputError
from quantrs.pickles import INSTEAD_OF_PICKLE, PICKLES

if TYPE_CHECKING:
    from os import PathLike

__all__ = ["open_model"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_HUB_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "tokenizer.model", "vocab.txt", "merges.txt", "*.jinja", "README.md")


def open_model(path: "str | PathLike[str]", *, pre: str | None = None, arch: str | None = None, to_run: bool = False) -> "_native.Gguf":
    """Open a model by what lies at `path`; nothing but headers, configuration and vocabulary is read.

    Parameters
    ----------
    path : path-like
        A GGUF file (of a split model, the first), a folder as ``save_pretrained`` writes it, or, with the extra ``[hub]``, the name of
        a model on the Hugging Face hub.
    pre : str, optional
        Name of the pre-tokenizer, for folders whose own cannot be recognised.
    arch : str, optional
        ``generic``: keep the folder's tensors as they are called, whatever model they belong to.
    to_run : bool
        It will be run, not written: the rules of a folder's own ``tokenizer.json`` need no name in GGUF's terms.

    Raises
    ------
    FileError, FormatError
        It cannot be read, or is damaged.
    InputError
        It is of a kind that is not read, or of a family that is not known.
    """
    text = os.fspath(path)
    found = Path(text)
    if os.path.isdir(text):  # noqa: PTH112 - a Path raises for names that are too long
        return _open_folder(found, pre, arch, to_run)
    if found.name.endswith((".safetensors", ".safetensors.index.json")) and os.path.exists(text):  # noqa: PTH110
        return _open_folder(found.parent, pre, arch, to_run)
    if text.lower().endswith(PICKLES):
        raise InputError(
            f"{text}: such files are pickles, which run code when they are opened, so they are never read; {INSTEAD_OF_PICKLE}"
        )
    if _HUB_ID.fullmatch(text) and not text.lower().endswith(".gguf") and not found.exists():
        return _open_folder(_download(text), pre, arch, to_run)
    for option, value in (("--pre", pre), ("--arch", arch)):
        if value is not None:
            raise InputError(f"{text}: {option} is for checkpoint folders, but this is one file; leave it out")
    return _native.Gguf.open(text)


def _open_folder(folder: Path, pre: str | None, arch: str | None, to_run: bool) -> "_native.Gguf":
    from quantrs.huggingface.assemble import assemble
    from quantrs.huggingface.folder import Folder

    return assemble(Folder.open(folder), pre=pre, arch=arch, to_run=to_run)


def _download(name: str) -> Path:
    """The hub's files in its own cache."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise FileError(
            f"{name}: there is no such file or folder; to fetch a model of this name from the Hugging Face hub, "
            "install the extra: pip install 'quantrs-llm[hub]'"
        ) from None
    try:
        return Path(snapshot_download(name, allow_patterns=list(_HUB_FILES)))
    except Exception as error:  # its errors have no common base, and their texts are long
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise FileError(f"{name}: cannot be fetched from the Hugging Face hub: {reason}; download it and give the folder") from error
