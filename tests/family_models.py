"""Tiny models of every family, made of numbers: what the golden logits were computed from.

Weights come from an integer hash, not from a random generator, so that they are the same for ever and need not be stored.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from gguf_bytes import gguf

N_EMBD, N_FF, N_VOCAB, N_CTX = 64, 96, 96, 64
TOKENS = [5, 17, 90, 3, 3, 41, 62, 8, 77, 20, 11, 54, 2, 95, 33, 29, 60, 1, 48, 71]


@dataclass
class Model:
    """One model: hyperparameters without the architecture's prefix, and tensors ``[out_features, in_features]``."""

    architecture: str
    metadata: dict[str, object] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    fixed: dict[str, np.ndarray] = field(default_factory=dict)
    other_metadata: dict[str, object] = field(default_factory=dict)
    """With whole keys."""

    def to_bytes(self) -> bytes:
        """The GGUF file."""
        metadata = {"general.architecture": self.architecture, "tokenizer.ggml.model": "none"}
        metadata |= {f"{self.architecture}.{key}": value for key, value in self.metadata.items()}
        tensors = {name: weights(name, shape) for name, shape in self.shapes.items()}
        return gguf(tensors | self.fixed, metadata | self.other_metadata)


def weights(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Values between about -0.5 and 0.5, those of norms around 1, by name and place."""
    x = np.arange(int(np.prod(shape)), dtype=np.uint32) + np.uint32(zlib.crc32(name.encode()))
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):  # the integer hash "lowbias32" of Chris Wellons
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    values = ((x ^ (x >> np.uint32(16))) >> np.uint32(8)).astype(np.float32) / np.float32(1 << 24) - np.float32(0.5)
    return (values + np.float32("norm.weight" in name)).reshape(shape)


def _model(
    architecture: str,
    *,
    n_blocks: int = 2,
    n_heads: int = 4,
    n_kv_heads: int = 2,
    head_dim: int = 16,
    tied: bool = False,
    mlp: str = "gated",
    attention: str = "separate",
    biases: tuple[str, ...] = (),
    norms: Mapping[str, int] | None = None,
    extra: Mapping[str, object] | None = None,
) -> Model:
    eps = "attention.layer_norm_epsilon" if architecture == "gpt2" else "attention.layer_norm_rms_epsilon"
    model = Model(
        architecture,
        {
            "vocab_size": N_VOCAB,
            "context_length": N_CTX,
            "embedding_length": N_EMBD,
            "block_count": n_blocks,
            "feed_forward_length": N_FF,
            "attention.head_count": n_heads,
            "attention.head_count_kv": n_kv_heads,
            eps: 1e-5,
            **({"attention.key_length": head_dim, "attention.value_length": head_dim} if head_dim * n_heads != N_EMBD else {}),
            **(extra or {}),
        },
    )
    shapes = model.shapes
    shapes |= {"token_embd.weight": (N_VOCAB, N_EMBD), "output_norm.weight": (N_EMBD,)}
    if not tied:
        shapes["output.weight"] = (N_VOCAB, N_EMBD)
    n_q, n_kv = n_heads * head_dim, n_kv_heads * head_dim
    for i in range(n_blocks):
        block = {
            "attn_q.weight": (n_q, N_EMBD),
            "attn_k.weight": (n_kv, N_EMBD),
            "attn_v.weight": (n_kv, N_EMBD),
            "attn_output.weight": (N_EMBD, n_q),
            "ffn_up.weight": (N_FF, N_EMBD),
            "ffn_gate.weight": (N_FF, N_EMBD),
            "ffn_down.weight": (N_EMBD, N_FF),
            **{name: (length,) for name, length in (norms or {"attn_norm.weight": N_EMBD, "ffn_norm.weight": N_EMBD}).items()},
        }
        if attention == "fused":
            block = {
                "attn_qkv.weight": (n_q + 2 * n_kv, N_EMBD),
                **{k: v for k, v in block.items() if k[:7] not in ("attn_q.", "attn_k.", "attn_v.")},
            }
        if mlp != "gated":
            del block["ffn_gate.weight"]
        if mlp == "fused":
            block["ffn_up.weight"] = (2 * N_FF, N_EMBD)
        if mlp == "experts":
            n_ff, n_experts = int(str(model.metadata.get("expert_feed_forward_length", N_FF))), int(str(model.metadata["expert_count"]))
            for name in ("ffn_up.weight", "ffn_down.weight"):
                del block[name]
            block |= {
                "ffn_gate_inp.weight": (n_experts, N_EMBD),
                "ffn_up_exps.weight": (n_experts, n_ff, N_EMBD),
                "ffn_gate_exps.weight": (n_experts, n_ff, N_EMBD),
                "ffn_down_exps.weight": (n_experts, N_EMBD, n_ff),
            }
        block |= {name: (block[name.replace(".bias", ".weight")][0],) for name in biases}
        shapes |= {f"blk.{i}.{name}": shape for name, shape in block.items()}
    return model


def _qwen2moe() -> Model:
    extra = {"expert_count": 6, "expert_used_count": 2, "expert_feed_forward_length": 32, "expert_shared_feed_forward_length": 48}
    model = _model("qwen2moe", mlp="experts", biases=("attn_q.bias", "attn_k.bias", "attn_v.bias"), extra=extra)
    for i in range(2):
        model.shapes |= {
            f"blk.{i}.ffn_gate_inp_shexp.weight": (N_EMBD,),
            f"blk.{i}.ffn_up_shexp.weight": (48, N_EMBD),
            f"blk.{i}.ffn_gate_shexp.weight": (48, N_EMBD),
            f"blk.{i}.ffn_down_shexp.weight": (N_EMBD, 48),
        }
    return model


def _with(model: Model, **fixed: list[float]) -> Model:
    model.fixed |= {f"{name}.weight": np.array(values, np.float32) for name, values in fixed.items()}
    return model


def _gpt2() -> Model:
    both = ("attn_norm", "ffn_norm")
    linears = ("attn_qkv", "attn_output", "ffn_up", "ffn_down")
    model = _model("gpt2", n_kv_heads=4, tied=True, mlp="plain", attention="fused", biases=tuple(f"{n}.bias" for n in both + linears))
    model.shapes |= {"output_norm.bias": (N_EMBD,), "position_embd.weight": (N_CTX, N_EMBD)}
    return model


_SANDWICH = {name: N_EMBD for name in ("attn_norm.weight", "post_attention_norm.weight", "ffn_norm.weight", "post_ffw_norm.weight")}
_PRE = {"attn_norm.weight": N_EMBD, "ffn_norm.weight": N_EMBD}
_HEADS = {"attn_q_norm.weight": 24, "attn_k_norm.weight": 24}
_POST = {"post_attention_norm.weight": N_EMBD, "post_ffw_norm.weight": N_EMBD, "attn_q_norm.weight": N_EMBD, "attn_k_norm.weight": 32}
_FACTORS = [1.0, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0, 8.0]
_EXPERTS = {"expert_count": 4, "expert_used_count": 2}
_LONG = {"rope.scaling.original_context_length": 32, "rope.scaling.attn_factor": 1.19, "rope.dimension_count": 16}

MODELS: Mapping[str, Model] = {
    "gemma": _model("gemma", head_dim=24, tied=True),
    "gemma2": _model(
        "gemma2",
        n_blocks=4,
        head_dim=24,
        tied=True,
        norms=_SANDWICH,
        extra={"attention.sliding_window": 6, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 8.0},
    ),
    "gemma3": _model(
        "gemma3", n_blocks=7, head_dim=24, tied=True, norms=_SANDWICH | _HEADS, extra={"attention.sliding_window": 6, "rope.freq_base": 1e6}
    ),
    "gpt2": _gpt2(),
    "granite": _model(
        "granite", tied=True, extra={"attention.scale": 0.1, "embedding_scale": 3.0, "residual_scale": 0.3, "logit_scale": 4.0}
    ),
    "llama": _model("llama", extra={"rope.dimension_count": 16}),
    "llama_linear_rope": _model("llama", extra={"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}),
    "llama_rope_factors": _with(_model("llama", biases=("attn_q.bias", "attn_output.bias", "ffn_down.bias")), rope_freqs=_FACTORS),
    "mixtral": _model("llama", mlp="experts", extra=_EXPERTS),
    "olmo2": _model("olmo2", norms=_POST),
    "olmo3": _model("olmo2", n_blocks=4, norms=_POST, extra={"attention.sliding_window": 6}),
    "phi3": _model("phi3", n_kv_heads=4, attention="fused", mlp="fused", extra={"rope.dimension_count": 16}),
    "phi3_long": _with(
        _model("phi3", attention="fused", mlp="fused", extra=_LONG), rope_factors_long=_FACTORS, rope_factors_short=[1.0] * 4 + [1.1] * 4
    ),
    "phi3_partial_rope": _model(
        "phi3", attention="fused", mlp="fused", tied=True, extra={"rope.dimension_count": 8, "rope.freq_base": 500.0}
    ),
    "qwen2": _model("qwen2", biases=("attn_q.bias", "attn_k.bias", "attn_v.bias")),
    "qwen2_yarn": _model(
        "qwen2",
        tied=True,
        biases=("attn_q.bias", "attn_k.bias", "attn_v.bias"),
        extra={"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 16},
    ),
    "qwen2moe": _qwen2moe(),
    "qwen3": _model("qwen3", head_dim=24, tied=True, norms=_PRE | _HEADS),
    "qwen3moe": _model("qwen3moe", head_dim=24, mlp="experts", norms=_PRE | _HEADS, extra={**_EXPERTS, "expert_feed_forward_length": 32}),
    "smollm3": _model("smollm3", n_blocks=5, tied=True),
}
