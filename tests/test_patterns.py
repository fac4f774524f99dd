"""``--tensor-type`` patterns mean here what ECMAScript says, or are refused."""

import pytest

from quantrs.errors import UsageError
from quantrs.patterns import compile_ecmascript


def _finds(pattern: str, name: str) -> bool:
    return bool(compile_ecmascript(pattern, where="--tensor-type").search(name.encode()))


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("attn_v", "blk.0.attn_v.weight", True),
        (r"blk\.[0-3]\.", "blk.3.ffn_up.weight", True),
        (r"blk\.[0-3]\.", "blk.13.ffn_up.weight", False),
        (r"^output\.weight$", "output.weight", True),
        ("weight$", "a.weight\n", False),
        ("a.b", "a\rb", False),
        (r"blk\.(\d+)\.(?!ffn)", "blk.2.ffn_up.weight", False),
        (r"blk\.(?:1|2)\.(?=ffn)", "blk.2.ffn_up.weight", True),
        ("[[:digit:]_]+x", "a1_x", True),
        ("[^[:alpha:].]", "abc.def", False),
        ("[]", "anything", False),
        ("[^]", "x", True),
        ("[[]", "a[b", True),
        ("[a&&b]", "&", True),
        (r"\d", "٣", False),
        ("n{2,3}?o", "nno", True),
        (r"(a)\1", "aa", True),
    ],
)
def test_pattern_is_searched_as_ecmascript(pattern: str, name: str, expected: bool) -> None:
    assert _finds(pattern, name) is expected


@pytest.mark.parametrize(
    "pattern",
    ["(", "a)", "[a", "*a", "a++", "a*{2}", "{", "a{,3}", "(?i)a", "(?<=a)b", "(?P<n>a)", "(?#x)", r"\q", r"\A", "\\", "[[:no:]]", "[b-a]"],
)
def test_syntax_that_ecmascript_lacks_is_a_usage_error(pattern: str) -> None:
    with pytest.raises(UsageError, match=r"--tensor-type: .* is not a regular expression"):
        compile_ecmascript(pattern, where="--tensor-type")
