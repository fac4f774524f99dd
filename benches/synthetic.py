"""Models of random weights, for measurements that need size and shape but no meaning."""

from pathlib import Path

import numpy as np

from quantrs import _native


def write_llama(path: Path, *, n_layers: int, hidden: int, ffn: int, n_vocab: int, merges: int = 1) -> Path:
    """Write an F16 llama whose rows are `hidden` and `ffn` values long."""
    header = _native.GgufHeader.new()
    for key, value, value_type in (
        ("general.architecture", "llama", "string"),
        ("general.name", "synthetic", "string"),
        ("general.file_type", 1, "u32"),
        ("llama.block_count", n_layers, "u32"),
        ("llama.context_length", 2048, "u32"),
        ("llama.embedding_length", hidden, "u32"),
        ("llama.feed_forward_length", ffn, "u32"),
        ("llama.attention.head_count", hidden // 128, "u32"),
        ("llama.attention.head_count_kv", hidden // 128, "u32"),
        ("llama.rope.dimension_count", 128, "u32"),
        ("llama.attention.layer_norm_rms_epsilon", 1e-5, "f32"),
        ("llama.vocab_size", n_vocab, "u32"),
        ("tokenizer.ggml.model", "gpt2", "string"),
        ("tokenizer.ggml.pre", "llama-bpe", "string"),
        ("tokenizer.ggml.tokens", [f"token{i}" for i in range(n_vocab)], "array[string]"),
        ("tokenizer.ggml.token_type", [1] * n_vocab, "array[i32]"),
        ("tokenizer.ggml.merges", [f"token {i}" for i in range(merges)], "array[string]"),
    ):
        header.set(key, value, value_type)
    tensors = {"token_embd.weight": (hidden, n_vocab), "output_norm.weight": (hidden,), "output.weight": (hidden, n_vocab)}
    for i in range(n_layers):
        for part, dims in (
            ("attn_norm", (hidden,)),
            ("attn_q", (hidden, hidden)),
            ("attn_k", (hidden, hidden)),
            ("attn_v", (hidden, hidden)),
            ("attn_output", (hidden, hidden)),
            ("ffn_norm", (hidden,)),
            ("ffn_gate", (hidden, ffn)),
            ("ffn_up", (hidden, ffn)),
            ("ffn_down", (ffn, hidden)),
        ):
            tensors[f"blk.{i}.{part}.weight"] = dims
    for name, dims in tensors.items():
        header.add_tensor(name, dims, "F32" if len(dims) == 1 else "F16")
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(header.to_bytes())
        for dims in tensors.values():
            values = rng.standard_normal(int(np.prod(dims)), np.float32) * np.float32(0.02)
            file.write(values.astype(np.float32 if len(dims) == 1 else np.float16).tobytes())
            file.write(bytes(-file.tell() % 32))
    return path
