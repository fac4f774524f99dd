"""What a user can ask of `quantize` and `plan`, and how the option texts are read.

The texts are those of ``llama-quantize``, so that a command line can be carried over. Nothing here knows a model.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

from quantrs.errors import FileError, UsageError

__all__ = [
    "KvOverride",
    "QuantizeOptions",
    "parse_kv_override",
    "parse_prune_layers",
    "parse_tensor_type",
    "read_tensor_type_file",
]

_MAX_TEXT_BYTES = 127  # llama.cpp keeps override keys and strings in char[128]
_MAX_U32 = 2**32 - 1


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions:
    """Everything that decides what the written file holds; threads, resuming and the like do not belong here."""

    to: str
    """File type as the user wrote it: a name of `quantrs.schemes.FILE_TYPES`, an alias, or a numeric id."""
    imatrix: str | None = None
    """Path of the importance matrix, exactly as given: this text goes into the written file."""
    imatrix_label: str | None = None
    """What the written file calls the importance matrix; its path when not given."""
    method: str | None = None
    """For checkpoint folders: a name of `quantrs.methods.METHODS`; what suits the format when not given."""
    skip: tuple[str, ...] = ()
    """For checkpoint folders: regular expressions; linears in whose name one is found stay as they are."""
    smooth_alpha: float = 0.5
    """Of SmoothQuant: 0 leaves inputs as they are, 1 moves their whole range into the weights."""
    damp_percent: float = 0.01
    """Of GPTQ: added to the Hessian's diagonal, in units of its mean."""
    mse: float | None = None
    """Of integers: search the ends of each group for the least sum of ``abs(error)**mse``; they are not searched when not given."""
    include_weights: tuple[str, ...] = ()
    """Only importance entries whose name contains one of these are used."""
    exclude_weights: tuple[str, ...] = ()
    """Importance entries whose name contains one of these are not used."""
    pure: bool = False
    """Give every tensor the default type of `to`, without the mix rules."""
    leave_output_tensor: bool = False
    """Copy ``output.weight``."""
    output_tensor_type: str | None = None
    """Tensor type of ``output.weight``."""
    token_embedding_type: str | None = None
    """Tensor type of ``token_embd.weight``."""
    tensor_types: tuple[tuple[str, str], ...] = ()
    """(regular expression, tensor type), first match wins."""
    recipe: Path | None = None
    """TOML file of rules; see `quantrs.recipe`."""
    override_kv: tuple[str, ...] = ()
    """``KEY=TYPE:VALUE`` texts."""
    prune_layers: tuple[int, ...] = ()
    """Numbers of the layers that are left out."""
    keep_split: bool = False
    """Write as many files as the source has."""
    allow_requantize: bool = False
    """Accept source tensors that are quantized already."""
    packed_to: str | None = None
    """Type of the linears of a quantized checkpoint that no block type holds without loss; by default they count as F32."""
    keep_shapes: bool = False
    """Write trailing dimensions of 1, as converters do; ``llama-quantize`` leaves them out."""
    pre: str | None = None
    """Name of the pre-tokenizer, for a checkpoint folder."""
    arch: str | None = None
    """``generic`` keeps the tensors of a checkpoint folder as they are called."""
    lora: tuple[str, ...] = ()
    """``DIR[:SCALE]``: adapters to add to the weights of a checkpoint folder."""

    def __post_init__(self) -> None:
        if self.include_weights and self.exclude_weights:
            raise UsageError("--include-weights and --exclude-weights cannot be used together; keep one of them")
        if self.imatrix is None and (self.include_weights or self.exclude_weights):
            raise UsageError("--include-weights and --exclude-weights choose entries of an importance matrix; add --imatrix FILE")
        negative = [layer for layer in self.prune_layers if layer < 0]
        if negative:
            raise UsageError(f"--prune-layers: found layer {negative[0]}, expected numbers from 0 up")

    def check_for(self, *, folder: bool) -> None:
        """Refuse options that mean nothing for what is written, a folder or a GGUF file.

        Raises
        ------
        UsageError
        """
        wrong = _OF_GGUF if folder else _OF_FOLDERS
        given = [name for name in wrong if getattr(self, name) != self.__dataclass_fields__[name].default]
        if given:
            option = "--" + given[0].replace("_", "-").removesuffix("s")
            raise UsageError(
                f"{option}: is for {'GGUF files' if folder else 'checkpoint folders'}, but --to {self.to} is none; leave it out"
            )


_OF_FOLDERS = ("method", "skip", "smooth_alpha", "damp_percent", "mse")
_OF_GGUF = (
    *("imatrix", "include_weights", "exclude_weights", "pure", "leave_output_tensor", "output_tensor_type", "token_embedding_type"),
    *("tensor_types", "override_kv", "prune_layers", "keep_split", "lora"),
)


@dataclass(frozen=True)
class KvOverride:
    """One ``--override-kv``: what is written, and what model hyperparameters are read from."""

    key: str
    value: int | float | bool | str
    value_type: str
    """``u32``, ``f32``, ``bool`` or ``string``: the type of the written value."""


def parse_kv_override(text: str) -> KvOverride:
    """Read ``KEY=int|float|bool|str:VALUE``.

    An integer is written as u32 of its absolute value and a float as f32, as ``llama-quantize`` does. Where that tool would
    take leading digits, or cut a large number to 32 bits, this one refuses.

    Examples
    --------
    >>> parse_kv_override("llama.context_length=int:4096")
    KvOverride(key='llama.context_length', value=4096, value_type='u32')
    >>> parse_kv_override("general.name=str:My = model").value
    'My = model'
    """
    key, equals, typed = text.partition("=")
    kind, colon, value = typed.partition(":")
    if not (equals and colon and key):
        raise UsageError(f"--override-kv: found {text!r}, expected KEY=TYPE:VALUE, for example general.name=str:my-model")
    if len(key.encode("utf-8", "surrogateescape")) > _MAX_TEXT_BYTES:
        raise UsageError(f"--override-kv: the key {key!r} is longer than {_MAX_TEXT_BYTES} bytes")
    if kind == "int":
        if not re.fullmatch(r"[+-]?[0-9]+", value) or abs(int(value)) > _MAX_U32:
            raise UsageError(f"--override-kv {key}: found {value!r}, expected an integer of at most {_MAX_U32} (it is written as u32)")
        return KvOverride(key, abs(int(value)), "u32")
    if kind == "float":
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or abs(number) > 3.4028235e38:
            raise UsageError(f"--override-kv {key}: found {value!r}, expected a number that a 32-bit float can hold")
        return KvOverride(key, number, "f32")
    if kind == "bool":
        if value not in ("true", "false"):
            raise UsageError(f"--override-kv {key}: found {value!r}, expected true or false")
        return KvOverride(key, value == "true", "bool")
    if kind == "str":
        if len(value.encode("utf-8", "surrogateescape")) > _MAX_TEXT_BYTES:
            raise UsageError(f"--override-kv {key}: the string is longer than {_MAX_TEXT_BYTES} bytes")
        return KvOverride(key, value, "string")
    raise UsageError(f"--override-kv {key}: found type {kind!r}, expected int, float, bool or str")


def parse_tensor_type(text: str, *, where: str = "--tensor-type") -> tuple[str, str]:
    """Split ``PATTERN=TYPE`` at its first equals sign; the pattern comes back in lower case, as ``llama-quantize`` uses it.

    Examples
    --------
    >>> parse_tensor_type("Attn_V=q6_k")
    ('attn_v', 'q6_k')
    """
    pattern, equals, type_name = text.partition("=")
    if not (pattern and equals and type_name):
        raise UsageError(f"{where}: found {text!r}, expected PATTERN=TYPE, for example attn_v=q6_k")
    return pattern.lower(), type_name


def read_tensor_type_file(path: str | Path) -> tuple[tuple[str, str], ...]:
    """Read ``PATTERN=TYPE`` entries separated by spaces or lines."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise FileError(f"--tensor-type-file: cannot read {path}: {error.strerror or error}") from error
    return tuple(parse_tensor_type(entry, where=f"--tensor-type-file {path}") for entry in text.split())


def parse_prune_layers(text: str) -> tuple[int, ...]:
    """Read comma-separated layer numbers; sorted, each once.

    Examples
    --------
    >>> parse_prune_layers("7,3,3")
    (3, 7)
    """
    layers = set()
    for part in map(str.strip, text.split(",")):
        if not re.fullmatch(r"[0-9]{1,9}", part):
            raise UsageError(f"--prune-layers: found {part!r}, expected layer numbers such as 3,7,11")
        layers.add(int(part))
    return tuple(sorted(layers))
