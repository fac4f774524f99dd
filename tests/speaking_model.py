"""A tiny model that says what a test wants: after each token it always chooses the same next one.

Its block adds nothing, its embeddings are unit vectors, and its output matrix holds a 1 where a token follows another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gguf_bytes import gguf
from quantrs.tokenization.encoders import BYTE_OF_CHARACTER

BYTES = sorted(BYTE_OF_CHARACTER, key=BYTE_OF_CHARACTER.__getitem__)
SPECIAL = ("<|im_start|>", "<|im_end|>", "<|begin|>", "<|think|>")
TOKENS = [*BYTES, *SPECIAL]
START, END, BEGIN, THINK = range(256, 260)
N_EMBD, N_FF = 272, 32
HI = "\nHi!"
"""An answer in ChatML, whose prompt ends with a line end."""


def ids_of(text: str) -> list[int]:
    """One token per byte."""
    return list(text.encode())


def write_speaker(
    path: Path, *texts: str | Sequence[int], then: int = END, metadata: dict[str, object] | None = None, n_ctx: int = 4096
) -> Path:
    """Write a model that goes on with the rest of one of `texts`, in all of which no byte occurs twice, then with the token `then`."""
    output = np.zeros((len(TOKENS), N_EMBD), np.float32)
    for text in texts:
        said = ids_of(text) if isinstance(text, str) else list(text)
        for token, following in zip(said, [*said[1:], then], strict=True):
            assert not output[:, token].any()
            output[following, token] = 1
    block = {"attn_q": (N_EMBD, N_EMBD), "attn_k": (N_EMBD, N_EMBD), "attn_v": (N_EMBD, N_EMBD), "attn_output": (N_EMBD, N_EMBD)}
    block |= {"ffn_gate": (N_FF, N_EMBD), "ffn_up": (N_FF, N_EMBD), "ffn_down": (N_EMBD, N_FF)}
    tensors = {
        "token_embd.weight": np.eye(len(TOKENS), N_EMBD, dtype=np.float32),
        "output.weight": output,
        "output_norm.weight": np.ones(N_EMBD, np.float32),
        **{f"blk.0.{name}.weight": np.zeros(shape, np.float32) for name, shape in block.items()},
        **{f"blk.0.{name}.weight": np.ones(N_EMBD, np.float32) for name in ("attn_norm", "ffn_norm")},
    }
    facts: dict[str, object] = {
        "llama.block_count": 1,
        "llama.context_length": n_ctx,
        "llama.embedding_length": N_EMBD,
        "llama.feed_forward_length": N_FF,
        "llama.attention.head_count": 2,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": [1] * 256 + [3] * len(SPECIAL),
        "tokenizer.ggml.merges": ["zz z"],
        "tokenizer.ggml.bos_token_id": BEGIN,
        "tokenizer.ggml.eos_token_id": END,
        **(metadata or {}),
    }
    path.write_bytes(gguf(tensors, facts))
    return path
