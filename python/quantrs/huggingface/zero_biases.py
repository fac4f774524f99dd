"""Biases that only the tool has: AutoGPTQ writes one for every linear, all zeros where the model has none."""

from typing import TYPE_CHECKING

from quantrs.errors import FormatError, InputError
from quantrs.families.checkpoint_format import template_of
from quantrs.formats.layer import read_array
from quantrs.huggingface.biased import biased_weights

if TYPE_CHECKING:
    from collections.abc import Iterable

    from quantrs.huggingface.folder import Folder

__all__ = ["superfluous_biases"]


def superfluous_biases(folder: "Folder", linears: "Iterable[str]") -> set[str]:
    """Names of biases of `linears` that a model of this configuration has no place for. Of unknown families all have one.

    Raises
    ------
    FormatError
        Such a bias is not zero: whoever follows the configuration would leave it out, and compute something else.
    FileError
        A file cannot be read.
    """
    from quantrs.huggingface.assemble import format_of  # which reads quantized folders

    found = [name for linear in linears if (name := f"{linear}.bias") in folder.tensors]
    if not found or folder.settings is None:
        return set()
    try:
        _, format_ = format_of(folder.settings)
    except InputError:
        return set()
    rows, biased, superfluous = format_.by_huggingface(), biased_weights(folder.settings, format_), set()
    for name in found:
        stem = name.removesuffix(".bias").replace("language_model.", "")
        templates = (template_of(f"{candidate}.")[0].removesuffix(".") for candidate in (stem, format_.prefix + stem))
        row = next((rows[template] for template in templates if template in rows), None)
        if row is None or row.gguf in biased:
            continue
        if read_array(folder, folder.tensors[name]).any():
            raise FormatError(
                f"{folder.path}: {name} is not zero, but {format_.model_type} has no bias there by this config.json; expected zeros, "
                "as AutoGPTQ writes them, or a configuration with attention_bias or mlp_bias"
            )
        superfluous.add(name)
    return superfluous
