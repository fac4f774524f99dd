"""Model families: the graph that the engine runs, and how Hugging Face stores the same model. One row of `FAMILIES` each.

A family is data: a builder reads hyperparameters and tensor names and returns a `GraphSpec`, and each of its `CheckpointFormat` pairs
names and keys with those of a Hugging Face folder. Neither the engine nor the converter knows any of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantrs.errors import InputError
from quantrs.families import gemma, gpt2, granite, llama, olmo2, phi3, qwen, qwen_moe, smollm3
from quantrs.families.checkpoint_format import CheckpointFormat
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
    formats: tuple[CheckpointFormat, ...]
    """How Hugging Face stores it; for a GGUF file the first one that fits is written."""


FAMILIES: Mapping[str, Family] = {
    "gemma": Family("Gemma", gemma.build_gemma, (gemma.GEMMA,)),
    "gemma2": Family("Gemma 2", gemma.build_gemma2, (gemma.GEMMA2,)),
    "gemma3": Family("Gemma 3 (text)", gemma.build_gemma3, (gemma.GEMMA3,)),
    "gpt2": Family("GPT-2", gpt2.build, gpt2.FORMATS),
    "granite": Family("Granite 3", granite.build, granite.FORMATS),
    "llama": Family("Llama 1 to 3, Mistral, Mixtral, SmolLM, TinyLlama", llama.build, llama.FORMATS),
    "olmo2": Family("OLMo 2, OLMo 3", olmo2.build, (olmo2.OLMO3, olmo2.OLMO2)),
    "phi3": Family("Phi 3, Phi 4", phi3.build, phi3.FORMATS),
    "qwen2": Family("Qwen 2, Qwen 2.5", qwen.build, (qwen.QWEN2,)),
    "qwen2moe": Family("Qwen 1.5 MoE, Qwen 2 MoE", qwen_moe.build_qwen2moe, (qwen_moe.QWEN2_MOE,)),
    "qwen3": Family("Qwen 3", qwen.build, (qwen.QWEN3,)),
    "qwen3moe": Family("Qwen 3 MoE", qwen_moe.build_qwen3moe, (qwen_moe.QWEN3_MOE,)),
    "smollm3": Family("SmolLM 3", smollm3.build, smollm3.FORMATS),
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
            f"{gguf.sources[0]}: the architecture {architecture!r} cannot be run; those that can are {', '.join(FAMILIES)}. "
            "It can be quantized all the same"
        )
    source = Source(gguf, n_ctx=n_ctx)
    return family.build(source), source.n_ctx
