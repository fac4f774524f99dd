"""The file-type mixes as tables: which kind of tensor gets another type than the file type's default.

They are llama.cpp's choices (``src/llama-quant.cpp`` at ``0c1e57098``), read and written down anew; the tests hold them
against what that tool chose for eleven model shapes. A cell is a list of alternatives, tried from the left; where none
holds, the default type stays. What does not fit a table (output, 70B models, eight experts) is in `quantrs.mixes`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

__all__ = ["ATTN_V_LIKE", "LOW_BIT", "RULES", "Category", "Condition", "Moment", "category_of"]


class Category(Enum):
    """What a tensor is for, as far as the mixes care."""

    OUTPUT = "output"
    TOKEN_EMBD = "token_embd"
    ATTN_QKV = "attn_qkv"
    ATTN_KV_B = "attn_kv_b"
    ATTN_V = "attn_v"
    ATTN_K = "attn_k"
    ATTN_Q = "attn_q"
    ATTN_OUTPUT = "attn_output"
    FFN_UP = "ffn_up"
    FFN_GATE = "ffn_gate"
    FFN_DOWN = "ffn_down"
    OTHER = "other"


_BY_FULL_NAME = {
    "output.weight": Category.OUTPUT,
    "token_embd.weight": Category.TOKEN_EMBD,
    "per_layer_token_embd.weight": Category.TOKEN_EMBD,
}

_BY_PART = (
    ("attn_qkv.weight", Category.ATTN_QKV),
    ("attn_kv_b.weight", Category.ATTN_KV_B),
    ("attn_v.weight", Category.ATTN_V),
    ("attn_k.weight", Category.ATTN_K),
    ("attn_q.weight", Category.ATTN_Q),
    ("attn_output.weight", Category.ATTN_OUTPUT),
    ("ffn_up", Category.FFN_UP),
    ("ffn_gate", Category.FFN_GATE),
    ("ffn_down", Category.FFN_DOWN),
)


def category_of(name: str) -> Category:
    """The category of a tensor name; the first that fits.

    Examples
    --------
    >>> category_of("blk.3.ffn_gate_exps.weight").value
    'ffn_gate'
    """
    full = _BY_FULL_NAME.get(name)
    if full is not None:
        return full
    return next((category for part, category in _BY_PART if part in name), Category.OTHER)


@dataclass(frozen=True)
class Moment:
    """What a rule may look at when a tensor's turn comes."""

    index: int
    """Place of the tensor within its category (or its layer)."""
    count: int
    """How many there are."""
    gqa: int
    """Query heads per key/value head."""
    n_experts: int
    has_imatrix: bool
    is_falcon: bool


@dataclass(frozen=True)
class Condition:
    """When an alternative is taken; `text` is shown to the user (empty for what needs no mention)."""

    text: str
    holds: Callable[[Moment], bool]

    def __and__(self, other: "Condition") -> "Condition":
        return Condition(", ".join(filter(None, (self.text, other.text))), lambda m: self.holds(m) and other.holds(m))


def _is_important_layer(m: Moment) -> bool:
    eighth = m.count // 8
    return m.index < eighth or m.index >= 7 * m.count // 8 or (m.index - eighth) % 3 == 2


_ALWAYS = Condition("", lambda _: True)
_FIRST_2 = Condition("first 2", lambda m: m.index < 2)
_FIRST_4 = Condition("first 4", lambda m: m.index < 4)
_FIRST_16TH = Condition("first sixteenth of the layers", lambda m: m.index < m.count // 16)
_FIRST_8TH = Condition("first eighth of the layers", lambda m: m.index < m.count // 8)
_MIDDLE = Condition("neither first nor last eighth", lambda m: m.count // 8 <= m.index < 7 * m.count // 8)
_IMPORTANT = Condition("first or last eighth, or a third layer between", _is_important_layer)
_GQA4 = Condition("4 or more query heads share it", lambda m: m.gqa >= 4)
_SHARED = Condition("4 or more query heads or experts", lambda m: m.gqa >= 4 or m.n_experts >= 4)
_EIGHT = Condition("8 experts", lambda m: m.n_experts == 8)
_IMATRIX = Condition("with imatrix", lambda m: m.has_imatrix)
_NO_IMATRIX = Condition("no imatrix", lambda m: not m.has_imatrix)
_FALCON = Condition("falcon", lambda m: m.is_falcon)
_NOT_FALCON = Condition("", lambda m: not m.is_falcon)
_COMMON = Condition("", lambda m: not m.is_falcon and m.n_experts != 8)

_Cell = tuple[tuple[Condition, str], ...]


def _row(names: str, *cell: tuple[Condition, str]) -> tuple[tuple[str, ...], _Cell]:
    return tuple(names.split()), cell


def _table(*rows: tuple[tuple[str, ...], _Cell]) -> Mapping[str, _Cell]:
    """File types of a row share its alternatives; those of a later row with the same file type come after."""
    table: dict[str, _Cell] = {}
    for names, cell in rows:
        for name in names:
            table[name] = table.get(name, ()) + cell
    return table


LOW_BIT = frozenset({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M"})
"""File types that upstream treats apart: no 70B rule, and eight experts count for less."""

ATTN_V_LIKE = frozenset({Category.ATTN_QKV, Category.ATTN_KV_B, Category.ATTN_V})
"""Counted together, and the same rules hold for them."""

_TOKEN_EMBD = _table(
    _row("IQ1_S IQ1_M IQ2_XXS IQ2_XS", (_ALWAYS, "Q2_K")),
    _row("IQ2_S IQ2_M IQ3_XXS", (_ALWAYS, "IQ3_S")),
    _row("TQ1_0 TQ2_0 Q2_0", (_ALWAYS, "Q4_K")),
)

_ATTN_V = _table(
    _row("IQ1_S IQ1_M IQ2_XXS IQ2_XS", (_SHARED, "Q4_K"), (_ALWAYS, "Q2_K")),
    _row("IQ2_S IQ2_M", (_SHARED, "Q4_K"), (_ALWAYS, "IQ3_S")),
    _row("Q2_K", (_GQA4, "Q4_K"), (_ALWAYS, "Q3_K")),
    _row("Q2_K_S IQ3_XS IQ3_S", (_GQA4, "Q4_K")),
    _row("IQ3_XXS", (_GQA4, "Q4_K"), (_NO_IMATRIX, "IQ3_S")),
    _row("IQ3_M", (_ALWAYS, "Q4_K")),
    _row("Q3_K_M", (_FIRST_2, "Q5_K"), (_ALWAYS, "Q4_K")),
    _row("Q3_K_L", (_ALWAYS, "Q5_K")),
    _row("IQ4_NL IQ4_XS", (_GQA4, "Q5_K")),
    _row("Q4_K_M Q5_K_M", (_IMPORTANT, "Q6_K")),
    _row("Q4_K_S", (_FIRST_4, "Q5_K")),
)

_ATTN_K = _table(
    _row("IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ2_M", (_EIGHT, "Q4_K")),
    _row("IQ3_XS", (_ALWAYS, "IQ3_XXS")),
    _row("IQ3_XXS", (_ALWAYS, "IQ2_S")),
)

_ATTN_Q = _table(
    _row("IQ3_XS", (_ALWAYS, "IQ3_XXS")),
    _row("IQ3_XXS", (_ALWAYS, "IQ2_S")),
)

_ATTN_OUTPUT = _table(
    _row("IQ1_S IQ1_M", (_EIGHT, "Q5_K"), (_ALWAYS, "IQ2_XXS")),
    _row("IQ2_XXS IQ2_XS", (_EIGHT, "Q5_K")),
    _row("IQ2_S IQ2_M", (_EIGHT, "Q5_K"), (_ALWAYS, "IQ3_S")),
    _row("Q2_K Q3_K_S Q3_K_M Q4_K_S Q4_K_M IQ3_XXS IQ3_XS IQ3_S IQ3_M IQ4_NL IQ4_XS", (_NOT_FALCON & _EIGHT, "Q5_K")),
    _row("Q2_K", (_COMMON, "Q3_K")),
    _row("IQ3_XXS", (_COMMON, "IQ3_S")),
    _row("Q3_K_M IQ3_M", (_COMMON, "Q4_K")),
    _row("Q3_K_L", (_FALCON, "Q4_K"), (_COMMON, "Q5_K")),
)

_FFN_DOWN = _table(
    _row("IQ1_S IQ1_M IQ2_XXS IQ2_XS", (_FIRST_8TH, "Q2_K")),
    _row("IQ2_S IQ2_M", (_FIRST_8TH, "IQ3_S")),
    _row("Q2_K", (_ALWAYS, "Q3_K")),
    _row("Q2_K_S", (_FIRST_8TH, "Q4_K")),
    _row("IQ3_XXS", (_NO_IMATRIX & _FIRST_8TH, "Q4_K"), (_NO_IMATRIX, "Q3_K")),
    _row("IQ3_M", (_FIRST_8TH, "Q4_K"), (_EIGHT & _IMPORTANT, "Q4_K")),
    _row("Q3_K_M", (_FIRST_16TH, "Q5_K"), (_NOT_FALCON, "Q4_K"), (_IMPORTANT, "Q4_K")),
    _row("Q3_K_L", (_FALCON, "Q4_K"), (_ALWAYS, "Q5_K")),
    _row("Q4_K_S", (_NOT_FALCON & _FIRST_8TH, "Q5_K")),
    _row("Q4_K_M", (_FALCON & _FIRST_16TH, "Q6_K"), (_FALCON & _IMPORTANT, "Q5_K"), (_NOT_FALCON & _IMPORTANT, "Q6_K")),
    _row("Q5_K_M", (_IMPORTANT, "Q6_K")),
    _row("IQ4_NL IQ4_XS", (_NO_IMATRIX & _FIRST_8TH, "Q5_K")),
    _row("Q4_0", (_IMATRIX & _FIRST_8TH, "Q4_1")),
    _row("Q5_0", (_IMATRIX & _FIRST_8TH, "Q5_1")),
)

_FFN_UP_AND_GATE = _table(_row("IQ3_XS", (_MIDDLE, "IQ3_XXS")))

RULES: Mapping[Category, Mapping[str, _Cell]] = {
    Category.TOKEN_EMBD: _TOKEN_EMBD,
    Category.ATTN_QKV: _ATTN_V,
    Category.ATTN_KV_B: _ATTN_V,
    Category.ATTN_V: _ATTN_V,
    Category.ATTN_K: _ATTN_K,
    Category.ATTN_Q: _ATTN_Q,
    Category.ATTN_OUTPUT: _ATTN_OUTPUT,
    Category.FFN_DOWN: _FFN_DOWN,
    Category.FFN_GATE: _FFN_UP_AND_GATE,
    Category.FFN_UP: _FFN_UP_AND_GATE,
}
