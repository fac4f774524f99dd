"""Recipes: the file's format, the order of rules, and what wins over what."""

from pathlib import Path

import pytest

from quantize_cases import llama_metadata, llama_shapes, write_hole
from quantrs._native import Gguf
from quantrs.errors import FileError, InputError, UsageError
from quantrs.options import QuantizeOptions
from quantrs.plan import Plan
from quantrs.recipe import Recipe


def _plan(tmp_path: Path, recipe: str, **options) -> dict[str, tuple[str, str]]:
    model = write_hole(tmp_path / "m.gguf", llama_shapes(3), llama_metadata(3))
    (tmp_path / "r.toml").write_text(recipe)
    plan = Plan.for_gguf(Gguf.open(model), QuantizeOptions(**{"to": "Q4_K_M", "recipe": tmp_path / "r.toml", **options}))
    return {tensor.name: (tensor.target_type, tensor.why) for tensor in plan.tensors}


def test_the_first_rule_that_matches_decides(tmp_path: Path) -> None:
    recipe = "[[rule]]\nmatch = 'blk.1.attn_q'\ntype = 'q8_0'\n[[rule]]\nmatch = 'attn_q'\ntype = 'Q5_0'\n"
    types = _plan(tmp_path, recipe)
    assert types["blk.1.attn_q.weight"] == ("Q8_0", "recipe rule 1 'blk.1.attn_q'")
    assert types["blk.0.attn_q.weight"] == ("Q5_0", "recipe rule 2 'attn_q'")
    assert types["blk.0.attn_k.weight"][0] == "Q4_K"


def test_keep_leaves_a_tensor_as_it_is(tmp_path: Path) -> None:
    types = _plan(tmp_path, "[[rule]]\nmatch = 'ffn_down'\nkeep = true")
    assert types["blk.2.ffn_down.weight"] == ("F16", "kept: recipe rule 1 'ffn_down'")


def test_a_rule_for_everything_spares_norms(tmp_path: Path) -> None:
    types = _plan(tmp_path, "[[rule]]\nmatch = '.*'\ntype = 'q5_1'")
    assert {type_name for name, (type_name, _) in types.items() if "norm" not in name} == {"Q5_1"}
    assert {type_name for name, (type_name, _) in types.items() if "norm" in name} == {"F32"}


def test_a_rule_that_matches_nothing_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"r\.toml: rule 2 \(match = 'atn_q'\) matches no tensor"):
        _plan(tmp_path, "[[rule]]\nmatch = 'attn_k'\ntype = 'q8_0'\n[[rule]]\nmatch = 'atn_q'\ntype = 'q8_0'")


def test_a_rule_for_norms_only_matches_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="matches no tensor that can be quantized"):
        _plan(tmp_path, "[[rule]]\nmatch = 'attn_norm'\ntype = 'q8_0'")


def test_a_shadowed_rule_still_counts_as_matching(tmp_path: Path) -> None:
    recipe = "[[rule]]\nmatch = 'output.weight'\ntype = 'q8_0'"
    assert _plan(tmp_path, recipe, output_tensor_type="q5_k")["output.weight"] == ("Q5_K", "--output-tensor-type")


def test_tensor_type_option_wins_over_the_recipe(tmp_path: Path) -> None:
    types = _plan(tmp_path, "[[rule]]\nmatch = 'attn'\ntype = 'q8_0'", tensor_types=(("attn_v", "q6_k"),))
    assert types["blk.0.attn_v.weight"][0] == "Q6_K"
    assert types["blk.0.attn_k.weight"][0] == "Q8_0"


def test_the_recipe_wins_over_pure_and_works_with_f16(tmp_path: Path) -> None:
    recipe = "[[rule]]\nmatch = 'attn_q'\ntype = 'q8_0'"
    for options in ({"pure": True}, {"to": "F16"}):
        assert _plan(tmp_path, recipe, **options)["blk.0.attn_q.weight"][0] == "Q8_0"


def test_tensors_of_a_recipe_do_not_count_in_the_mix(tmp_path: Path) -> None:
    # Q4_K_S gives the first 4 attn_v Q5_K; Q3_K_M the first 2. With layer 0 taken out, layers 1 and 2 are the first 2.
    types = _plan(tmp_path, "[[rule]]\nmatch = 'blk.0.attn_v'\ntype = 'q8_0'", to="Q3_K_M")
    assert [types[f"blk.{layer}.attn_v.weight"][0] for layer in range(3)] == ["Q8_0", "Q5_K", "Q5_K"]


def test_copy_takes_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--to COPY"):
        _plan(tmp_path, "[[rule]]\nmatch = 'a'\nkeep = true", to="COPY")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"expected one or more \[\[rule\]\] tables"),
        ("rule = 3", r"expected one or more \[\[rule\]\] tables"),
        ("[[rule]", "not TOML"),
        ("[[rules]]\nmatch = 'a'", "found key 'rules'"),
        ("[[rule]]\ntype = 'q8_0'", "rule 1: expected match"),
        ("[[rule]]\nmatch = 'a'", "found neither"),
        ("[[rule]]\nmatch = 'a'\ntype = 'q8_0'\nkeep = true", "found both"),
        ("[[rule]]\nmatch = 'a'\nkeep = false", "expected keep = true"),
        ("[[rule]]\nmatch = 'a'\ntype = 8", "found type = 8"),
        ("[[rule]]\nmatch = 'a'\ntype = 'q9_z'", "rule 1: unknown tensor type 'q9_z'"),
        ("[[rule]]\nmatch = 'a('\ntype = 'q8_0'", "not a regular expression"),
        ("[[rule]]\nmatch = 'a'\ntypes = 'q8_0'", "found key 'types'"),
    ],
)
def test_a_malformed_recipe_is_a_usage_error_that_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Recipe.parse(text)


def test_an_unreadable_recipe_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"recipe: cannot read .*absent\.toml"):
        Recipe.read(tmp_path / "absent.toml")
    (tmp_path / "latin.toml").write_bytes(b"# \xe9\n")
    with pytest.raises(UsageError, match="not UTF-8 at byte 2"):
        Recipe.read(tmp_path / "latin.toml")


def test_the_example_of_the_manual_is_a_recipe() -> None:
    manual = (Path(__file__).parent.parent / "docs" / "recipes.md").read_text(encoding="utf-8")
    example = manual.split("```toml\n")[1].split("```")[0]
    assert [rule.type_name for rule in Recipe.parse(example).rules] == ["Q8_0", "IQ4_XS", None]
