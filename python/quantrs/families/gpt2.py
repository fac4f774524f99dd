"""GPT-2: learned positions, LayerNorm, biases everywhere, an MLP without a gate."""

from quantrs.families import checkpoint_rows as rows
from quantrs.families import parts
from quantrs.families.checkpoint_format import CheckpointFormat, Key, Setting, Weight
from quantrs.families.source import Source
from quantrs.families.spec import Block, GraphSpec


def build(model: Source) -> GraphSpec:
    """Pre-norm blocks over embeddings plus positions."""

    def block(i: int) -> Block:
        return Block(
            parts.attention(model, i, None),
            parts.mlp(model, i, "gelu_tanh"),
            parts.norm(model, f"blk.{i}.attn_norm"),
            parts.norm(model, f"blk.{i}.ffn_norm"),
        )

    return parts.graph(model, parts.blocks(model, block), position_embd="position_embd.weight")


FORMATS = (
    CheckpointFormat(
        model_type="gpt2",
        model_class="GPT2LMHeadModel",
        prefix="transformer.",
        weights=(
            Weight("token_embd", "transformer.wte"),
            Weight("position_embd", "transformer.wpe"),
            Weight("output", "lm_head", optional=True),
            rows.norm("blk.{i}.attn_norm", "transformer.h.{i}.ln_1"),
            rows.norm("blk.{i}.ffn_norm", "transformer.h.{i}.ln_2"),
            rows.norm("output_norm", "transformer.ln_f"),
            Weight("blk.{i}.attn_qkv", "transformer.h.{i}.attn.c_attn", transposed=True),
            Weight("blk.{i}.attn_output", "transformer.h.{i}.attn.c_proj", transposed=True),
            Weight("blk.{i}.ffn_up", "transformer.h.{i}.mlp.c_fc", transposed=True),
            Weight("blk.{i}.ffn_down", "transformer.h.{i}.mlp.c_proj", transposed=True),
        ),
        keys=(
            Key("block_count", ("n_layer", "num_hidden_layers")),
            Key("context_length", ("n_positions", "n_ctx")),
            Key("embedding_length", ("n_embd", "hidden_size")),
            Key("feed_forward_length", "n_inner", default=lambda config: 4 * config.integer("n_embd", "hidden_size", at_most=2**28)),
            Key("attention.head_count", ("n_head", "num_attention_heads")),
            Key("attention.layer_norm_epsilon", "layer_norm_epsilon", "f32", default=1e-5),
            rows.FILE_TYPE,
        ),
        settings=(
            Setting("activation_function", ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")),
            Setting("scale_attn_weights", (True,)),
            Setting("scale_attn_by_inverse_layer_idx", (False,)),
            Setting("add_cross_attention", (False,)),
        ),
    ),
)
