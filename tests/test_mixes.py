"""Which type each tensor gets, against what llama-quantize chose for eleven model shapes."""

import json
from pathlib import Path

import pytest

from quantrs.errors import InputError
from quantrs.mix_rules import RULES
from quantrs.mixes import Choice, Mix, MixTensor, ModelFacts, Wishes, demands_imatrix, is_excluded, layer_of
from quantrs.schemes import FILE_TYPES, file_type, tensor_types

MIXES = json.loads((Path(__file__).parent / "golden" / "ggml" / "ftype_mix.json").read_text(encoding="utf-8"))


def _facts(model: dict) -> ModelFacts:
    arch, kv = model["arch"], model["kv"]
    return ModelFacts(
        arch,
        kv[f"{arch}.block_count"],
        kv[f"{arch}.attention.head_count"],
        kv[f"{arch}.attention.head_count_kv"],
        kv.get(f"{arch}.expert_count", 0),
    )


def _choices(tensors: list[MixTensor], to: str, facts: ModelFacts | None = None, *, has_imatrix: bool = False, **wishes) -> list[Choice]:
    names = [tensor.name for tensor in tensors]
    mix = Mix(file_type(to), facts or ModelFacts(), names, has_imatrix=has_imatrix, wishes=Wishes(**wishes))
    return [mix.choose(tensor) for tensor in tensors]


@pytest.mark.parametrize("mode", ["default", "imatrix", "pure"])
@pytest.mark.parametrize("name", sorted(MIXES["models"]))
def test_choices_equal_the_reference_for_every_file_type(name: str, mode: str) -> None:
    model = MIXES["models"][name]
    tensors = [MixTensor(tensor, tuple(dims), source.upper()) for tensor, dims, source in model["tensors"]]
    for to, want in model[mode].items():
        if want.startswith("error"):
            with pytest.raises(InputError, match="no type is defined to take its place"):
                _choices(tensors, to, _facts(model), has_imatrix=mode == "imatrix", pure=mode == "pure")
            continue
        choices = _choices(tensors, to, _facts(model), has_imatrix=mode == "imatrix", pure=mode == "pure")
        wrong = [
            f"{to} {tensor.name}: {choice.type_name} ({choice.why}), the reference says {MIXES['codes'][code]}"
            for tensor, choice, code in zip(tensors, choices, want, strict=True)
            if choice.type_name.lower() != MIXES["codes"][code].lower()
        ]
        assert not wrong, wrong[0]


def test_the_oracle_covers_every_file_type_with_rules() -> None:
    covered = set(next(iter(MIXES["models"].values()))["default"])
    assert {row.name for row in FILE_TYPES if row.is_quantized} <= covered


def test_rule_tables_name_known_types_only() -> None:
    file_types = {row.name for row in FILE_TYPES}
    for table in RULES.values():
        assert set(table) <= file_types
        assert {type_name for cell in table.values() for _, type_name in cell} <= set(tensor_types())


@pytest.mark.parametrize(
    ("name", "n_dims"),
    [
        ("blk.0.attn_norm.weight", 1),
        ("blk.0.attn_q_norm.weight", 2),
        ("blk.0.attn_q.bias", 2),
        ("blk.0.ffn_gate_inp.weight", 2),
        ("blk.0.ssm_conv1d.weight", 2),
        ("blk.0.time_mix_w1.weight", 2),
        ("blk.0.time_mix_lerp_fused.weight", 3),
        ("position_embd.weight", 2),
        ("token_types.weight", 2),
        ("v.patch_embd.weight", 4),
        ("enc.blk.0.attn_rel_b.weight", 2),
        ("blk.0.indexer.k_proj.weight", 2),
    ],
)
def test_sensitive_tensors_are_never_quantized(name: str, n_dims: int) -> None:
    assert is_excluded(name, n_dims)


@pytest.mark.parametrize(
    "name", ["blk.0.attn_q.weight", "output.weight", "blk.0.time_mix_key.weight", "blk.0.indexer.attn_k.weight", "abcde"]
)
def test_other_matrices_may_be_quantized(name: str) -> None:
    assert is_excluded(name, 2) is None


def test_glm5_next_keeps_more_tensors() -> None:
    assert is_excluded("blk.0.indexer.attn_k.weight", 2, "glm5-next")
    tensors = [MixTensor("output.weight", (256, 8), "F16"), MixTensor("blk.0.attn_q_a.weight", (256, 8), "F16")]
    assert _choices(tensors, "Q2_K", ModelFacts("glm5-next", 1))[1].type_name == "Q8_0"


def test_layer_is_read_from_the_start_of_the_name_only() -> None:
    assert layer_of("blk.12.attn_q.weight") == 12
    assert layer_of("dec.blk.3.attn_q.weight") is None


def test_seventy_billion_models_get_more_bits_for_attn_v() -> None:
    tensors = [MixTensor("output.weight", (256, 8), "F16"), *(MixTensor(f"blk.{i}.attn_v.weight", (256, 8), "F16") for i in range(80))]
    for arch, layers in (("llama", 80), ("qwen2", 80), ("deci", 80), ("olmo", 80), ("jais2", 68)):
        assert _choices(tensors, "Q3_K_S", ModelFacts(arch, layers, 64, 8))[1].type_name == "Q5_K", arch
    assert _choices(tensors, "Q3_K_S", ModelFacts("llama", 80, 64, 64))[1].type_name == "Q3_K", "65B"
    assert _choices(tensors, "Q3_K_S", ModelFacts("jais2", 80, 64, 8))[1].type_name == "Q3_K"


def test_only_the_experts_of_bailingmoe3_become_mxfp4() -> None:
    tensors = [MixTensor("output.weight", (256, 8), "F16")]
    tensors += [MixTensor(f"blk.0.{name}.weight", (256, 8, 4), "F16") for name in ("ffn_up_exps", "attn_k_b")]
    assert [choice.type_name for choice in _choices(tensors, "MXFP4_MOE", ModelFacts("bailingmoe3", 1))] == ["Q8_0", "MXFP4", "Q8_0"]
    assert [choice.type_name for choice in _choices(tensors, "MXFP4_MOE", ModelFacts("llama", 1))] == ["Q8_0", "MXFP4", "MXFP4"]


def test_a_model_without_metadata_gets_types_by_name_and_shape() -> None:
    tensors = [MixTensor("output.weight", (256, 8), "F16"), MixTensor("blk.0.ffn_down.weight", (256, 8), "F16")]
    assert [choice.type_name for choice in _choices(tensors, "Q4_K_M")] == ["Q6_K", "Q6_K"]


def test_an_option_for_one_tensor_that_does_not_fit_names_row_block_and_option() -> None:
    tensors = [MixTensor("output.weight", (288, 8), "F16")]
    with pytest.raises(InputError, match=r"output\.weight: rows of 288 .* multiple of 256 \(Q6_K block\).*--output-tensor-type"):
        _choices(tensors, "Q4_0", output_tensor_type="Q6_K")


def test_a_pattern_for_the_per_layer_table_beats_the_token_embedding_type() -> None:
    tensors = [MixTensor(name, (256, 8), "F16") for name in ("output.weight", "per_layer_token_embd.weight", "token_embd.weight")]
    choices = _choices(
        tensors, "Q4_0", token_embedding_type="Q8_0", by_pattern=lambda name: ("Q5_0", "pattern") if "embd" in name else None
    )
    assert [choice.type_name for choice in choices] == ["Q6_K", "Q5_0", "Q8_0"]


def test_demands_for_an_imatrix_spare_embeddings_and_output() -> None:
    assert demands_imatrix("blk.0.attn_q.weight", "IQ2_XS", "IQ2_XS")
    assert demands_imatrix("blk.0.attn_q.weight", "Q2_K", "Q2_K_S")
    assert not demands_imatrix("blk.0.attn_q.weight", "Q2_K", "Q2_K")
    assert not demands_imatrix("token_embd.weight", "IQ2_XS", "IQ2_XS")
    assert not demands_imatrix("output.weight", "Q2_K", "Q2_K_S")


def test_every_choice_says_why() -> None:
    tensors = [MixTensor(name, dims, "F16") for name, dims in (
        ("output.weight", (256, 8)), ("blk.0.attn_norm.weight", (256,)), ("blk.0.attn_v.weight", (256, 8)),
        ("blk.0.attn_q.weight", (288, 8)), ("blk.0.ffn_up.weight", (256, 8)))]  # fmt: skip
    assert [choice.why for choice in _choices(tensors, "Q4_K_M", ModelFacts("llama", 8, 8, 8))] == [
        "rule: output of Q4_K_M",
        "kept: one dimension",
        "rule: attn_v of Q4_K_M (first or last eighth, or a third layer between)",
        "fallback from Q4_K: row 288 is not a multiple of 256; default of Q4_K_M",
        "default of Q4_K_M",
    ]
