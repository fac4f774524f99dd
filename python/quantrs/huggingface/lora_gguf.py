"""A low-rank adapter as a GGUF file of its own, which llama.cpp adds to a model when it loads it."""

from typing import TYPE_CHECKING

from quantrs import _native
from quantrs.errors import InputError
from quantrs.families.checkpoint_format import CheckpointFormat, Weight, numbered, template_of
from quantrs.huggingface.assemble import format_of
from quantrs.huggingface.config import Config
from quantrs.huggingface.general_keys import title
from quantrs.huggingface.lora import Adapter, LoraUpdate

if TYPE_CHECKING:
    from quantrs._native import AssembledTensor, Gguf

__all__ = ["assemble_adapter"]

_HEADS = {"query_heads": "attention.head_count", "key_heads": "attention.head_count_kv"}


def assemble_adapter(adapter: Adapter, base: Config) -> "Gguf":
    """The adapter as a GGUF file that exists only in memory; both matrices of each weight are float32.

    Parameters
    ----------
    adapter : Adapter
        An open adapter.
    base : Config
        ``config.json`` of the model that it was trained on, whose family says how weights are called and ordered.

    Raises
    ------
    InputError
        The base model's family is unknown, or a weight has no place in it.
    """
    architecture, format_ = format_of(base)
    numbers = {key: value for row in format_.keys for key, value, _ in row.to_gguf(base) if isinstance(value, int)}
    heads = {order: numbers.get(key, numbers["attention.head_count"]) for order, key in _HEADS.items()}
    header = _native.GgufHeader.new()
    header.set("general.architecture", architecture, "string")
    header.set("general.type", "adapter", "string")
    header.set("adapter.type", "lora", "string")
    header.set("adapter.lora.alpha", _alpha(adapter), "f32")
    header.set("general.name", title(adapter.path.resolve().name), "string")
    header.set("general.quantization_version", 2, "u32")
    tensors = [matrix for update in adapter.updates for matrix in _matrices(adapter, format_, update, heads)]
    return _native.Gguf.assembled(header, [adapter.file], tensors)


def _alpha(adapter: Adapter) -> float:
    """llama.cpp multiplies with alpha / r, r being each weight's own, so that one alpha has to serve all."""
    alphas = {round(update.scale * update.a.shape[0], 6) for update in adapter.updates}
    if len(alphas) > 1:
        raise InputError(f"{adapter.path}: scale times rank differs between weights, GGUF holds one; merge it with --lora instead")
    return alphas.pop()


def _matrices(adapter: Adapter, format_: CheckpointFormat, update: LoraUpdate, heads: dict[str, int]) -> "list[AssembledTensor]":
    weight, i = _row_of(adapter, format_, update)
    n_heads = heads.get(weight.order, 0)
    n_rows = update.b.shape[0]
    if n_heads and n_rows % (2 * n_heads):
        raise InputError(f"{adapter.file}: {update.b.name}: has {n_rows} rows, expected an even number for each of {n_heads} heads")
    order = "halves_to_pairs" if n_heads else "as_stored"
    name = f"{numbered(weight.gguf, i)}.weight"
    return [
        _native.AssembledTensor(f"{name}.lora_{letter}", matrix.shape[::-1], "F32", [part])
        for letter, matrix, part in (
            ("a", update.a, _native.Part(0, update.a.offset, update.a.dtype, update.a.shape[0])),
            ("b", update.b, _native.Part(0, update.b.offset, update.b.dtype, n_rows, order, n_heads)),
        )
    ]


def _row_of(adapter: Adapter, format_: CheckpointFormat, update: LoraUpdate) -> tuple[Weight, int]:
    rows = format_.by_huggingface()
    stem = update.weight.removesuffix(".weight")
    for candidate in (stem, format_.prefix + stem):
        template, numbers = template_of(candidate + ".")
        weight = rows.get(template.removesuffix("."))
        if weight is not None and len(numbers) < 2 and weight.gguf != "token_embd":
            return weight, (*numbers, 0)[0]
    raise InputError(f"{adapter.file}: {update.weight}: has no place of its own in a GGUF adapter; merge it with --lora instead")
