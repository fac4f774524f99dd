"""The arguments that several commands share, and their way into one record."""

from pathlib import Path
from typing import Annotated

import typer

from quantrs.options import QuantizeOptions, parse_prune_layers, parse_tensor_type, read_tensor_type_file

__all__ = [
    "AllowRequantize",
    "Debug",
    "ExcludeWeights",
    "File",
    "Imatrix",
    "IncludeWeights",
    "Json",
    "KeepSplit",
    "LeaveOutputTensor",
    "OutputTensorType",
    "OverrideKv",
    "PruneLayers",
    "Pure",
    "Recipe",
    "Source",
    "TensorType",
    "TensorTypeFile",
    "Threads",
    "To",
    "TokenEmbeddingType",
    "quantize_options",
]

Source = Annotated[Path, typer.Argument(metavar="SRC", help="GGUF model; of a split one, the first file.", show_default=False)]
File = Annotated[Path, typer.Argument(metavar="FILE", help="GGUF file; of a split model, the first one.", show_default=False)]
To = Annotated[
    str, typer.Option("--to", metavar="TYPE", help="File type: Q4_K_M, Q8_0, IQ4_XS, F16, COPY ... or its number.", show_default=False)
]
Imatrix = Annotated[str | None, typer.Option("--imatrix", metavar="FILE", help="Importance matrix, GGUF or .dat.")]
IncludeWeights = Annotated[
    list[str] | None, typer.Option("--include-weights", metavar="NAME", help="Use importance only of tensors named so; may be repeated.")
]
ExcludeWeights = Annotated[
    list[str] | None, typer.Option("--exclude-weights", metavar="NAME", help="Use no importance of tensors named so; may be repeated.")
]
Pure = Annotated[bool, typer.Option("--pure", help="Give every tensor the type that TYPE is named after.")]
LeaveOutputTensor = Annotated[bool, typer.Option("--leave-output-tensor", help="Copy output.weight.")]
OutputTensorType = Annotated[str | None, typer.Option("--output-tensor-type", metavar="TYPE", help="Tensor type of output.weight.")]
TokenEmbeddingType = Annotated[str | None, typer.Option("--token-embedding-type", metavar="TYPE", help="Tensor type of token_embd.weight.")]
TensorType = Annotated[
    list[str] | None,
    typer.Option(
        "--tensor-type", metavar="PATTERN=TYPE", help="Tensor type where the regular expression is found; may be repeated, the first wins."
    ),
]
TensorTypeFile = Annotated[
    Path | None, typer.Option("--tensor-type-file", metavar="FILE", help="PATTERN=TYPE entries separated by white space.")
]
Recipe = Annotated[
    Path | None, typer.Option("--recipe", metavar="FILE.toml", help="Ordered rules; the first that matches a tensor decides.")
]
OverrideKv = Annotated[
    list[str] | None,
    typer.Option(
        "--override-kv", metavar="KEY=TYPE:VALUE", help="Metadata to write instead; TYPE is int, float, bool or str; may be repeated."
    ),
]
PruneLayers = Annotated[str | None, typer.Option("--prune-layers", metavar="N,N,...", help="Layers to leave out.")]
KeepSplit = Annotated[bool, typer.Option("--keep-split", help="Write as many files as the source has.")]
AllowRequantize = Annotated[bool, typer.Option("--allow-requantize", help="Accept a source that is quantized already.")]
Threads = Annotated[int | None, typer.Option("--threads", metavar="N", min=1, help="By default all CPUs.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value; notices and progress go to standard error.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show where an error came from.")]


def quantize_options(
    *,
    to: str,
    imatrix: str | None,
    include_weights: list[str] | None,
    exclude_weights: list[str] | None,
    pure: bool,
    leave_output_tensor: bool,
    output_tensor_type: str | None,
    token_embedding_type: str | None,
    tensor_type: list[str] | None,
    tensor_type_file: Path | None,
    recipe: Path | None,
    override_kv: list[str] | None,
    prune_layers: str | None,
    keep_split: bool,
    allow_requantize: bool,
) -> QuantizeOptions:
    """Read the option texts.

    Raises
    ------
    UsageError
        A text is malformed; the message shows what is expected.
    FileError
        The tensor type file cannot be read.
    """
    from_file = read_tensor_type_file(tensor_type_file) if tensor_type_file else ()
    return QuantizeOptions(
        to=to,
        imatrix=imatrix,
        include_weights=tuple(include_weights or ()),
        exclude_weights=tuple(exclude_weights or ()),
        pure=pure,
        leave_output_tensor=leave_output_tensor,
        output_tensor_type=output_tensor_type,
        token_embedding_type=token_embedding_type,
        tensor_types=(*map(parse_tensor_type, tensor_type or ()), *from_file),
        recipe=recipe,
        override_kv=tuple(override_kv or ()),
        prune_layers=parse_prune_layers(prune_layers) if prune_layers is not None else (),
        keep_split=keep_split,
        allow_requantize=allow_requantize,
    )
