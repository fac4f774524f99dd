"""The graph of a model as plain records: what ``rust/quantrs-engine/src/spec.rs`` reads as JSON.

Shapes are ``[out_features, in_features]``; tensors are named as in the GGUF file. A feature that a model lacks is None.
"""

import dataclasses
import json
from dataclasses import dataclass
from typing import Literal

__all__ = ["Attention", "Block", "GraphSpec", "Linear", "Mlp", "Moe", "Norm", "Rope", "RopeScaling"]

Activation = Literal["silu", "gelu_tanh", "relu"]


@dataclass(frozen=True)
class Norm:
    """``rms``: x / sqrt(mean(x^2) + eps) * weight; ``layer``: with the mean taken off, and a bias."""

    kind: Literal["rms", "layer"]
    weight: str
    bias: str | None
    eps: float


@dataclass(frozen=True)
class Linear:
    """A matrix, some rows of one (`first_row` of `tensor_rows`), or one matrix per expert (`n_matrices`)."""

    tensor: str
    bias: str | None
    n_cols: int
    n_rows: int
    tensor_rows: int
    first_row: int = 0
    n_matrices: int = 1


@dataclass(frozen=True)
class RopeScaling:
    """``linear`` uses `factor` alone."""

    kind: Literal["linear", "yarn"]
    factor: float
    original_context: int | None = None
    beta_fast: float | None = None
    beta_slow: float | None = None


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding: ``normal`` rotates neighbours, ``neox`` the halves of a head."""

    style: Literal["normal", "neox"]
    n_dims: int
    base: float
    scaling: RopeScaling | None
    magnitude: float = 1.0
    factors: str | None = None


@dataclass(frozen=True)
class Attention:
    """Attention and its projections; `scale` multiplies the scores, `window` counts the positions seen."""

    n_heads: int
    n_kv_heads: int
    k_dim: int
    v_dim: int
    q: Linear
    k: Linear
    v: Linear
    out: Linear
    scale: float
    rope: Rope | None
    q_norm: Norm | None = None
    k_norm: Norm | None = None
    window: int | None = None
    soft_cap: float | None = None
    sinks: str | None = None


@dataclass(frozen=True)
class Mlp:
    """down(act(gate x) * up x), or down(act(up x)) without a gate."""

    activation: Activation
    gate: Linear | None
    up: Linear
    down: Linear


@dataclass(frozen=True)
class Moe:
    """A choice of `n_used` experts per token."""

    router: Linear
    gating: Literal["softmax", "sigmoid"]
    n_used: int
    renormalize: bool
    experts: Mlp
    scale: float = 1.0
    selection_bias: str | None = None
    shared: Mlp | None = None
    shared_gate: Linear | None = None


@dataclass(frozen=True)
class Block:
    """x += residual_scale * post_attn_norm(attention(attn_norm(x))), then likewise with the MLP."""

    attention: Attention
    ffn: Mlp | Moe
    attn_norm: Norm | None
    ffn_norm: Norm | None
    post_attn_norm: Norm | None = None
    post_ffn_norm: Norm | None = None
    residual_scale: float = 1.0


@dataclass(frozen=True)
class GraphSpec:
    """A decoder: embedding, blocks, norm, output."""

    n_vocab: int
    n_embd: int
    n_ctx_train: int
    blocks: tuple[Block, ...]
    output_norm: Norm
    output: Linear
    token_embd: str = "token_embd.weight"
    position_embd: str | None = None
    embedding_scale: float = 1.0
    logit_scale: float = 1.0
    logit_soft_cap: float | None = None

    def to_json(self) -> str:
        """As the engine reads it."""
        return json.dumps(_plain(self))


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value):
        fields = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, RopeScaling):
            return {name: field for name, field in fields.items() if field is not None}
        if isinstance(value, Block):
            fields["ffn"] = {type(value.ffn).__name__.lower(): fields["ffn"]}
        return fields
    return [_plain(v) for v in value] if isinstance(value, tuple) else value
