"""The name of a folder's pre-tokenizer, found by what it does.

A GGUF file holds a name where ``tokenizer.json`` holds the rules, so the rules must be recognised. Other converters hash the ids of one
text: a model with another vocabulary, or one added token, has another hash. Here the folder's own pre-tokenizer and those of
`PRE_TOKENIZERS` cut the same hard texts into words, and the row that cuts every one of them alike is taken. Names that stand for the same
rules give the same ids under any of them; which is written then depends on the kind of model, for the eyes of people.
"""

import json
from functools import cache
from time import monotonic

from quantrs.errors import FormatError, InputError, UsageError
from quantrs.tokenization.bounded_json import JsonObject
from quantrs.tokenization.pre_tokenizers import PRE_TOKENIZERS, PreTokenizer, word_splitter
from quantrs.tokenization.tokenizers_errors import tokenizers_errors

__all__ = ["PROBES", "check_name", "detect_pre"]

PROBES: tuple[str, ...] = (
    # digits: alone, in runs of every length, after letters, signs and spaces, of other scripts, in thousands
    "1 12 123 1234 12345 123456 1234567 12345678",
    "a1b22c333d4444 3.14159 -42 +7 1,000,000 0x1F 2024-01-31 12:34:56",
    "  1234  12 3 x=10000;y=99999",
    "٣٤٥٦ १२३४५ ௧௨௩ 二〇二四 ⅣⅤ ½¾ ²³¹ ①②③ 12३४",
    "v1.2.3 1st 22nd 333rd 4444th 10km 100% $1000 €2000 #12345",
    # contractions in both cases, with other apostrophes, within and after words
    "I'm you're he's she'd we've they'll don't it'S",
    "I'M YOU'RE HE'S SHE'D WE'VE THEY'LL DON'T I'Ll We'Ve",
    "'s 't 're 've 'm 'll 'd 'S 'T 'RE 'tis rock'n'roll O'Neil ''quoted'' 'lless 'dear",
    "it’s they’re l’été d'accord 'sΩ 'ſ",
    # letters: case changes, capitals, camel case, marks, title case
    "camelCase PascalCase HTTPServer iPhone McDonald XMLHttpRequest ABCdef aBCdEF USA's",
    "naïve café Ærøskøbing STRASSE straße İstanbul ǅungla ǈ ŉ ﬁn",
    "e\u0301a\u0300o\u0308 E\u0301COLE a\u0301\u0302b x\u0327 \u0301alone 1\u0301 !\u0301",
    "Привет МИР ΑΒΓ αβγ Ёлка ПриВет",
    "हिन्दी में क्षत्रिय தமிழ் ภาษาไทย ကမ္ဘာ ខ្មែរ",
    "العربيّة مُحَمَّد עִבְרִית שָׁלוֹם",
    "ꞏꟁ ⴀⴁⴂ 𐐀𐐨 ა ᲀ 𝒜𝔅 ꭰ Ა",
    # Chinese, Japanese, Korean, alone and between others
    "你好世界 中文abc中文123中文 a中b文c 汉字，标点。「引号」",
    "日本語 ひらがな カタカナ ｶﾀｶﾅ ー々〆 東京タワー123 テストtest",
    "한국어 텍스트 한글abc한글 ㄱㄴㄷ",
    "𠀀𠀁 豈更 〇一二 ㍿",
    # white space: runs, kinds, before words, at the ends
    "a b  c   d    e",
    "  leading",
    "trailing  ",
    "trailing tab\t",
    " ",
    "   ",
    "\n",
    "\n\n\n",
    "a\nb\n\nc\n\n\nd",
    "a \n b  \n\n  c \n\n \n d",
    "a\r\nb\r\n\r\nc\rd",
    "\ta\t\tb \t c\t \td\n\te",
    "x\n    indented\n        more\n\tend\n",
    "a\u00a0b\u3000c\u2009d\u200be\u2028f\u2029g\u0085h\u000bi\u000cj",
    "\u00a0\u00a0x \u00a0y",
    # punctuation and symbols: alone, in runs, before and after words and line ends
    "! ?? ... ,,, ;; :: -- --- === ==== ## ### ** *** ~~ `` ``` | || && ++ -> => <- <= >= != <>",
    "(a) [b] {c} <d> \"e\" 'f' `g` /h/ \\i\\ |j| _k_ __l__ *m* #n @o $p %q ^r &s =t +u ~v",
    "foo.bar,baz;qux:quux!corge?grault/garply\\waldo|fred-plugh_xyzzy=thud",
    "end.\nnext!\n\nmore?\r\nlast;\n  }\n};\n",
    "word.\n\n\nword, \nword /\n/path/to//file\n\\n",
    "!!!\n???\n\n...\n \n...",
    "a/\nb/\r\n/c\n//\n/",
    '.a !b ?c ,d -e _f @g #h $i %j ^k &l *m (n )o =p +q [r ]s {t }u |v \\w :x ;y "z <A >B /C ~D `E',
    "  .a   !!b  -1  _x  $5  “c” ‘d’ «e» —f –g …h",
    "¡Hola! ¿Qué? „Zitat“ ·punkt· §1 ©2024 ®™ ° ± × ÷ µ ¬ ¦",
    "、。，．・：；？！（）［］｛｝「」『』【】〈〉《》〔〕…—～",
    "।॥ ؟ ، ؛ ۔ ։ ჻ ። ፣ ᠃",
    "+=<>^~|$`´¨¯ ∑∫√∞≠≤≥ →←↑↓ ☃★♥ ₿€£¥",
    # emoji with joiners, variation selectors, skin tones, flags, key caps
    "🙂 👍🏽 👨‍👩‍👧‍👦 🇩🇪🇫🇷 ❤️ ☀︎ 1️⃣ #️⃣ 🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "hi🙂there 🙂🙂 ok👍 👍ok 3👍4",
    # controls, private use, unassigned, replacement
    "\x00\x01\x02 a\x07b \x1b[0m \x7f \u200d \ufeff \ue000 \ufffd \U000e0001 \U0010ffff",
    # code, prose, addresses
    "def f(x):\n    return x**2 + 3*x - 1  # comment\n\n\nclass A(B):\n\tpass\n",
    "for (int i=0;i<10;++i){a[i]+=b[i]*2;} // loop\n#include <stdio.h>\n",
    '<div class="a-b_c">text</div>&nbsp;{{ x|safe }} ${y} @media {a:b}',
    "https://example.org/a/b?c=1&d=2#e user@mail.com C:\\dir\\file.txt ../x/./y",
    "| a | b |\n|---|:-:|\n| 1 | 22 |\n\n- [x] item\n1. one\n2. two\n",
    "\\frac{1}{2} $x_{i}^{2}$ \\alpha\\beta {\\bf b}",
    '{"key": [1, 2.5, null, true], "k2": "v\\n"}',
    "Mixed Текст 中文 עברית 한글 123 émoji🙂, end.  \n",
)
"""Texts that tell pre-tokenizers apart."""

_CANONICAL: dict[str, tuple[str, ...]] = {
    "cohere": ("command-r",),
    "deepseek_v3": ("deepseek-v3",),
    "falcon": ("falcon",),
    "falcon_h1": ("falcon-h1",),
    "glm4": ("glm4", "chatglm-bpe"),
    "gpt2": ("gpt-2",),
    "granite": ("refact", "granite-docling"),
    "granitemoe": ("refact",),
    "mpt": ("mpt",),
    "olmo": ("olmo",),
    "olmo2": ("dbrx",),
    "phi": ("phi-2",),
    "qwen2": ("qwen2",),
    "starcoder2": ("starcoder",),
}
"""Names that files of a model type usually carry; any name with the same rules gives the same ids."""

_USUAL = ("gpt-2", "smollm", "llama-bpe", "qwen2", "dbrx", "deepseek-v3", "bloom", "gpt-4o", "bailingmoe", "tiny_aya", "glm4")
"""The name of a group of equal rows when the model type says nothing: the oldest, or the one that its models are known by."""

_BY_CLASS = {"GPT2Tokenizer": "gpt-2", "Qwen2Tokenizer": "qwen2", "RobertaTokenizer": "roberta-bpe", "CodeGenTokenizer": "gpt-2"}
"""Rules that a class of transformers brings along for folders without ``tokenizer.json``."""


def check_name(name: str) -> str:
    """The name, if it is one.

    Raises
    ------
    UsageError
        It is not.
    """
    if name not in PRE_TOKENIZERS:
        raise UsageError(f"--pre: found {name!r}, expected one of {', '.join(sorted(PRE_TOKENIZERS))}")
    return name


def detect_pre(section: JsonObject | None, *, ignore_merges: bool, model_type: str, tokenizer_class: str = "") -> str:
    """Find the row of `PRE_TOKENIZERS` that cuts text as a folder does.

    Parameters
    ----------
    section
        ``pre_tokenizer`` of ``tokenizer.json``; None for a folder without that file.
    ignore_merges
        A word that is a token is taken whole: the row must do the same.
    model_type
        Of ``config.json``: decides between names of equal rows.
    tokenizer_class
        Of ``tokenizer_config.json``: tells the rules where there is no ``tokenizer.json``.

    Raises
    ------
    InputError
        No row does; the message names the nearest.
    FormatError
        The section is no pre-tokenizer.
    """
    if section is None:
        found = _BY_CLASS.get(tokenizer_class)
        if found is None:
            raise InputError(
                f"found no tokenizer.json, and tokenizer_class {tokenizer_class!r}; expected a file with the pre-tokenizer's rules"
                f" or one of the classes {', '.join(_BY_CLASS)}; name the rules with --pre, one of {', '.join(sorted(PRE_TOKENIZERS))}"
            )
        return found
    expected = _words_by_rules(section)
    n_different = {
        patterns: sum(found != want for found, want in zip(_words_by(patterns), expected, strict=True))
        for patterns in {row.patterns for row in PRE_TOKENIZERS.values()}
    }
    equal = [name for name, row in PRE_TOKENIZERS.items() if n_different[row.patterns] == 0 and row.whole_words == ignore_merges]
    if equal:
        return _preferred(equal, model_type)
    nearest = sorted(_groups().items(), key=lambda group: (n_different[group[0].patterns], group[0].whole_words != ignore_merges))[:3]
    listed = "; ".join(f"{_difference(row, n_different[row.patterns], ignore_merges)}: {', '.join(names)}" for row, names in nearest)
    raise InputError(
        "tokenizer.json: its pre-tokenizer cuts text as none that GGUF files have a name for. Nearest,"
        f" of {len(PROBES)} test texts: {listed}. Choose one with --pre NAME;"
        " texts that it cuts otherwise will have other tokens than the model was trained with"
    )


def _preferred(names: list[str], model_type: str) -> str:
    wanted = (*_CANONICAL.get(model_type, ()), *_USUAL)
    return next((name for name in wanted if name in names), names[0])


def _groups() -> dict[PreTokenizer, list[str]]:
    """Names by what they do."""
    groups: dict[PreTokenizer, list[str]] = {}
    for name, row in PRE_TOKENIZERS.items():
        groups.setdefault(PreTokenizer(row.patterns, row.whole_words), []).append(name)
    return groups


def _difference(row: PreTokenizer, n_different: int, ignore_merges: bool) -> str:
    text = f"{n_different} cut otherwise" if n_different else "all cut alike"
    if row.whole_words != ignore_merges:
        text += f", but ignore_merges is {str(ignore_merges).lower()} here and {str(row.whole_words).lower()} there"
    return text


@cache
def _words_by(patterns: tuple[str, ...]) -> list[list[str]]:
    split = word_splitter(patterns)
    return [split(text) for text in PROBES]


def _words_by_rules(section: JsonObject) -> list[list[str]]:
    """Words of each probe by the folder's own rules, run by the `tokenizers` library in a tokenizer of no tokens."""
    from tokenizers import Tokenizer

    where, expected = "tokenizer.json: pre_tokenizer", "expected a pre-tokenizer of the tokenizers library that cuts short texts in no time"
    text = json.dumps({**_EMPTY, "pre_tokenizer": section})
    with tokenizers_errors(where, expected):
        pre = Tokenizer.from_str(text).pre_tokenizer
    out = []
    end = monotonic() + _MAX_SECONDS
    for probe in PROBES:
        with tokenizers_errors(where, expected):
            out.append([word for word, _ in pre.pre_tokenize_str(probe)])
        if monotonic() > end:
            raise FormatError(f"{where}: cutting {len(out)} short texts took more than {_MAX_SECONDS} seconds; {expected}")
    return out


_EMPTY = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {}, "merges": []}}
_MAX_SECONDS = 10
