"""The name of a pre-tokenizer, found by what it does. The sections are those of models' published ``tokenizer.json``."""

from __future__ import annotations

import pytest

import quantrs
from quantrs.tokenization.detect_pre import PROBES, check_name, detect_pre
from quantrs.tokenization.pre_tokenizers import PRE_TOKENIZERS

Section = dict[str, object]

SUFFIXES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
CL100K = SUFFIXES + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{SUFFIXES}?|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{SUFFIXES}?|\p{{N}}{{1,3}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK_3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level(*, use_regex: bool = False) -> Section:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def split(regex: str, *, removed: bool = False) -> Section:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Removed" if removed else "Isolated", "invert": removed}


def steps(*sections: Section) -> Section:
    return {"type": "Sequence", "pretokenizers": list(sections)}


DIGITS: Section = {"type": "Digits", "individual_digits": True}
PUBLISHED: dict[str, tuple[Section, bool, str, str]] = {  # section, ignore_merges, model type, name
    "GPT-2": (byte_level(use_regex=True), False, "gpt2", "gpt-2"),
    "OLMo": (byte_level(use_regex=True), False, "olmo", "olmo"),
    "SmolLM2": (steps(DIGITS, byte_level(use_regex=True)), False, "llama", "smollm"),
    "StarCoder2": (steps(DIGITS, byte_level(use_regex=True)), False, "starcoder2", "starcoder"),
    "Granite 3": (steps(DIGITS, byte_level(use_regex=True)), False, "granite", "refact"),
    "Llama 3": (steps(split(CL100K), byte_level()), True, "llama", "llama-bpe"),
    "SmolLM3": (steps(split(CL100K), byte_level()), True, "smollm3", "llama-bpe"),
    "OLMo 2": (steps(split(CL100K, removed=True), byte_level()), False, "olmo2", "dbrx"),
    "Qwen 2": (steps(split(CL100K.replace("{1,3}", "")), byte_level()), False, "qwen2", "qwen2"),
    "Qwen 3": (steps(split(CL100K.replace("{1,3}", "")), byte_level()), False, "qwen3", "qwen2"),
    "Phi 4 mini": (steps(split(O200K, removed=True), byte_level()), False, "phi3", "gpt-4o"),
    "Mistral Nemo": (steps(split(TEKKEN), byte_level()), True, "mistral", "tekken"),
    "DeepSeek V3": (
        steps(split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK_3), byte_level()),
        False,
        "deepseek_v3",
        "deepseek-v3",
    ),
}


@pytest.mark.parametrize("model", sorted(PUBLISHED))
def test_published_rules_are_recognised(model: str) -> None:
    section, ignore_merges, model_type, name = PUBLISHED[model]
    assert detect_pre(section, ignore_merges=ignore_merges, model_type=model_type) == name


@pytest.mark.parametrize("name", sorted(PRE_TOKENIZERS))
def test_every_name_is_recognised_or_one_that_does_the_same(name: str) -> None:
    row = PRE_TOKENIZERS[name]
    section = steps(*map(split, row.patterns), byte_level())
    found = PRE_TOKENIZERS[detect_pre(section, ignore_merges=row.whole_words, model_type="")]
    assert found.whole_words == row.whole_words
    if name in ("bailingmoe", "bailingmoe2", "llada-moe"):
        return  # cut line ends by another expression, to the same effect as qwen2
    assert found.patterns == row.patterns


def test_rules_without_a_name_are_refused_with_the_nearest() -> None:
    section = steps(split(CL100K.replace("{1,3}", "{1,2}")), byte_level())
    with pytest.raises(quantrs.InputError, match=rf"Nearest, of {len(PROBES)} test texts: \d+ cut otherwise: .*dbrx.*;.*;.*--pre NAME"):
        detect_pre(section, ignore_merges=False, model_type="llama")


def test_ignored_merges_have_to_agree() -> None:
    section = steps(split(CL100K.replace("{1,3}", "")), byte_level())
    with pytest.raises(quantrs.InputError, match="all cut alike, but ignore_merges is true here and false there: qwen2"):
        detect_pre(section, ignore_merges=True, model_type="qwen2")


def test_a_class_tells_the_rules_where_no_file_does() -> None:
    assert detect_pre(None, ignore_merges=False, model_type="qwen2", tokenizer_class="Qwen2Tokenizer") == "qwen2"
    with pytest.raises(quantrs.InputError, match=r"found no tokenizer\.json, and tokenizer_class 'Odd'.*--pre"):
        detect_pre(None, ignore_merges=False, model_type="qwen2", tokenizer_class="Odd")


@pytest.mark.parametrize("section", [{"type": "Nonesuch"}, {}, {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated"}])
def test_damaged_sections_are_refused(section: Section) -> None:
    with pytest.raises(quantrs.FormatError, match=r"tokenizer\.json: pre_tokenizer"):
        detect_pre(section, ignore_merges=False, model_type="llama")


def test_rules_that_never_end_are_refused() -> None:
    section = steps(split(r"((((.*)*)*)*)*Z"), byte_level())
    with pytest.raises(quantrs.FormatError, match="retry-limit-in-match over; expected a pre-tokenizer"):
        detect_pre(section, ignore_merges=False, model_type="llama")


def test_an_unknown_name_is_wrong_usage() -> None:
    assert check_name("llama-bpe") == "llama-bpe"
    with pytest.raises(quantrs.errors.UsageError, match=r"--pre: found 'nonesuch', expected one of .*llama-bpe"):
        check_name("nonesuch")
