"""Model families: what turns a GGUF file's metadata into the graph that the engine runs. One row of `FAMILIES` each.

A family is data: a builder reads hyperparameters and tensor names and returns a `GraphSpec`. The engine knows none of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantrs.errors import InputError
from quantrs.families import gemma, gpt2, granite, llama, olmo2, phi3, qwen, qwen_moe
from quantrs.families.source import Source
from quantrs.families.spec import GraphSpec

if TYPE_CHECKING:
    from quantrs._native import Gguf

__all__ = ["FAMILIES", "Family", "GraphSpec", "graph_of"]


@dataclass(frozen=True)
class Family:
    """One row of the table."""

    models: str
    """Who is meant, for people."""
    build: Callable[[Source], GraphSpec]


FAMILIES: Mapping[str, Family] = {
    "gemma": Family("Gemma", gemma.build_gemma),
    "gemma2": Family("Gemma 2", gemma.build_gemma2),
    "gemma3": Family("Gemma 3 (text)", gemma.build_gemma3),
    "gpt2": Family("GPT-2", gpt2.build),
    "granite": Family("Granite 3", granite.build),
    "llama": Family("Llama 1 to 3, Mistral, Mixtral, SmolLM, TinyLlama", llama.build),
    "olmo2": Family("OLMo 2, OLMo 3", olmo2.build),
    "phi3": Family("Phi 3, Phi 4", phi3.build),
    "qwen2": Family("Qwen 2, Qwen 2.5", qwen.build),
    "qwen2moe": Family("Qwen 1.5 MoE, Qwen 2 MoE", qwen_moe.build_qwen2moe),
    "qwen3": Family("Qwen 3", qwen.build),
    "qwen3moe": Family("Qwen 3 MoE", qwen_moe.build_qwen3moe),
}
"""By ``general.architecture``."""


def graph_of(gguf: "Gguf", *, n_ctx: int | None = None) -> tuple[GraphSpec, int]:
    """The graph of an open model, and the tokens of context to run it with.

    Parameters
    ----------
    gguf : Gguf
        The file's header.
    n_ctx : int, optional
        Tokens of context asked for; else what the model was made for, at most 4096.

    Raises
    ------
    InputError
        The architecture is in no row of `FAMILIES`, or the model uses something that the engine lacks.
    FormatError
        Metadata is missing or contradicts the tensors.
    """
    architecture = gguf.get("general.architecture")
    family = FAMILIES.get(architecture) if isinstance(architecture, str) else None
    if family is None:
        raise InputError(
            f"{gguf.files[0]}: the architecture {architecture!r} cannot be run; those that can are {', '.join(FAMILIES)}. "
            "It can be quantized all the same"
        )
    source = Source(gguf, n_ctx=n_ctx)
    return family.build(source), source.n_ctx
