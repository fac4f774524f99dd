"""How byte-level BPE vocabularies cut text into words before any merging: regular expressions by ``tokenizer.ggml.pre``.

A model publishes its expressions in ``tokenizer.json``; a GGUF file carries only a name for them. Several expressions are
applied one after the other, each to the pieces that those before it left; matches and what lies between them are pieces.
"""

from collections.abc import Callable
from dataclasses import dataclass

from quantrs.errors import FormatError

__all__ = ["PRE_TOKENIZERS", "PreTokenizer", "pre_tokenizer", "word_splitter"]

_SUFFIX = r"'s|'t|'re|'ve|'m|'ll|'d"
_SUFFIX_ANY_CASE = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s+(?!\S)|\s+"
_GPT2 = rf"{_SUFFIX}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)"


def _gpt4(suffix: str, letters: str, digits: str, *, symbols: str = r" ?[^\s\p{L}\p{N}]+[\r\n]*", lines: str = r"\s*[\r\n]+") -> str:
    """The shape that most newer models share: suffixes, words with one symbol before them, digits, symbols, line ends, spaces."""
    return "|".join(filter(None, [suffix, letters, digits, symbols, lines, _SPACES]))


_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SYMBOLS_SLASH = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"


def _by_case(after: str = "") -> str:
    """Words that also end where a capital follows a small letter."""
    return rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{after}|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{after}"


# Cased letters but those that the vocabulary's list of ranges leaves out, most of which came to Unicode later.
_UNLISTED = (
    "\u0560\u0588\u10c7\u10cd\u10d0-\u10fa\u10fd-\u10ff\u1c80-\u1c88\u2d00-\u2d2d\ua790-\ua7fa\uab30-\uab5a\uab60-\uab68"
    "\U00010570-\U000105bb\U00016e40-\U00016e7f\U0001d400-\U0001d7cb\U0001df00-\U0001df1e"
)
_DEEPSEEK_LLM = (
    r"[\r\n]",
    rf"\s?[\p{{Lu}}\p{{Ll}}\p{{Lt}}&&[^{_UNLISTED}]]+",
    "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
    r"\s+$",
    "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
    r"\p{N}+",
)
_DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+", r"\p{N}")
_DEEPSEEK_V3 = (
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|" + _SPACES,
)
_BLOOM = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"
_LLAMA3 = _gpt4(_SUFFIX_ANY_CASE, _WORD, r"\p{N}{1,3}")
_QWEN2 = _gpt4(_SUFFIX_ANY_CASE, _WORD, r"\p{N}")
_GPT4O = _gpt4("", _by_case(_SUFFIX_ANY_CASE + "?"), r"\p{N}{1,3}", symbols=_SYMBOLS_SLASH)


@dataclass(frozen=True)
class PreTokenizer:
    """How text becomes words, and what else a vocabulary of that name does."""

    patterns: tuple[str, ...]
    whole_words: bool = False
    """A word that is a token is taken as it is, without merging (``ignore_merges``)."""
    add_bos: bool = False
    """The begin token is wanted when the file does not say."""


_PLAIN = {
    "gpt-2 phi-2 olmo mpt jais trillion granite-docling exaone4 gigachat a.x-4.0 mellum modern-bert": (_GPT2,),
    "jina-es jina-de jina-v2-es jina-v2-de jina-v1-en jina-v2-code roberta-bpe": (_GPT2,),
    "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2": (r"\p{N}", _GPT2),
    "default": (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"),
    "falcon": (r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9][0-9][0-9]"),
    "dbrx smaug-bpe chatglm-bpe": (_LLAMA3,),
    "qwen2 deepseek-r1-qwen kormo f2llmv2 stablelm2 hunyuan megrez solar-open grok-2": (_QWEN2,),
    "qwen35": (_gpt4(_SUFFIX_ANY_CASE, r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+", r"\p{N}", symbols=r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"),),
    "deepseek-llm": _DEEPSEEK_LLM,
    "deepseek-coder": _DEEPSEEK_CODER,
    "deepseek-v3 hunyuan-dense joyai-llm": _DEEPSEEK_V3,
    "bloom poro-chat gpt3-finnish": (_BLOOM,),
    "viking": (_BLOOM, r"\p{N}"),
    "gpt-4o llama4 kanana2 talkie minimax-m2": (_GPT4O,),
    "tiny_aya cohere2moe": (r"\d{1,3}(?=(?:\d{3})*\b)", _GPT4O),
    "bailingmoe bailingmoe2 llada-moe": (_gpt4(r"'(?i:[sdmt]|ll|ve|re)", _WORD, r"\p{N}", lines=r"\s*[\r\n]"),),
    "seed-coder": (_gpt4(_SUFFIX_ANY_CASE, _WORD, r"\p{N}", symbols=r" ?[^\s\p{L}\p{N}\r\n]+"),),
    "superbpe": (r"\p{N}+", r"(?=(\d{3})+(?!\d))"),
}
PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    **{name: PreTokenizer(patterns) for names, patterns in _PLAIN.items() for name in names.split()},
    **{
        name: PreTokenizer((_LLAMA3,), whole_words=True, add_bos=True)
        for name in ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano")
    },
    **{name: PreTokenizer((_LLAMA3,), whole_words=True) for name in ("glm4", "glm5")},
    "tekken": PreTokenizer((_gpt4("", _by_case(), r"\p{N}", symbols=_SYMBOLS_SLASH),), whole_words=True, add_bos=True),
    "minicpm5": PreTokenizer((r"\p{N}{1,3}", _gpt4(_SUFFIX_ANY_CASE, _WORD, r"\p{N}+")), whole_words=True),
}
"""By the name in ``tokenizer.ggml.pre``."""


def pre_tokenizer(name: str) -> PreTokenizer:
    """The row of a name; files without one get ``default``, as in llama.cpp.

    Raises
    ------
    FormatError
        No such row: a wrong guess would give wrong tokens without a word.
    """
    found = PRE_TOKENIZERS.get(name or "default")
    if found is None:
        raise FormatError(
            f"tokenizer.ggml.pre: found {name!r}, expected one of {', '.join(sorted(PRE_TOKENIZERS))};"
            " put the model's tokenizer.json beside the file to use that instead"
        )
    return found


def word_splitter(patterns: tuple[str, ...]) -> Callable[[str], list[str]]:
    """A function from text to its words, spelled in the 256 characters that stand for bytes in such vocabularies."""
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

    steps = [Split(Regex(pattern), "isolated") for pattern in patterns]
    split = Sequence([*steps, ByteLevel(add_prefix_space=False, use_regex=False)])
    return lambda text: [word for word, _ in split.pre_tokenize_str(text)]
