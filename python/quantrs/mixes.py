"""Which tensor type each tensor gets: exclusions, mix rules, explicit wishes and the fallback for odd row lengths.

The choices are ``llama-quantize``'s, for every file type and architecture. The order of precedence:

1. tensors that are never quantized (norms, one dimension, small or sensitive parts) keep their type;
2. ``--token-embedding-type`` and ``--output-tensor-type``;
3. ``--tensor-type`` patterns, then the rules of a recipe (both skip the mix rules *and* their counters);
4. ``--pure``: the default type;
5. the tables of `quantrs.mix_rules`.

Types from 3 to 5 pass the fallback for rows that are not a multiple of the block.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quantrs.errors import InputError
from quantrs.mix_rules import ATTN_V_LIKE, LOW_BIT, RULES, Category, Moment, category_of
from quantrs.schemes import FileType, tensor_types

__all__ = ["Choice", "Mix", "MixTensor", "ModelFacts", "Wishes", "demands_imatrix", "is_excluded", "layer_of"]


@dataclass(frozen=True)
class ModelFacts:
    """What the rules need to know of a model; a model without these keys is served by shapes and names alone."""

    architecture: str = ""
    block_count: int = 0
    head_count: int = 0
    """Of layer 0."""
    head_count_kv: int = 0
    """Of layer 0."""
    expert_count: int = 0

    @property
    def gqa(self) -> int:
        """Query heads per key/value head; 0 where there are none."""
        return self.head_count // self.head_count_kv if self.head_count_kv else 0

    @property
    def is_70b(self) -> bool:
        """Models whose small ``attn_v`` upstream gives more bits."""
        if self.architecture == "llama":
            return self.block_count == 80 and self.head_count != self.head_count_kv and self.expert_count != 8
        return (self.architecture, self.block_count) in {("qwen2", 80), ("deci", 80), ("olmo", 80), ("jais2", 68)}


@dataclass(frozen=True)
class MixTensor:
    """One tensor as the rules see it."""

    name: str
    dims: tuple[int, ...]
    """Row length first, no trailing dimensions of 1."""
    type_name: str


@dataclass(frozen=True)
class Choice:
    """The type of one tensor and what decided it."""

    type_name: str
    why: str
    excluded: bool = False
    """The tensor is never quantized, whatever the file type."""


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the user asked for besides the file type; types are spelled as in the registry."""

    pure: bool = False
    leave_output_tensor: bool = False
    output_tensor_type: str | None = None
    token_embedding_type: str | None = None
    by_pattern: Callable[[str], tuple[str, str] | None] = lambda _: None
    """Tensor name to (type, why) by ``--tensor-type``, or None."""
    by_recipe: Callable[[str], tuple[str | None, str] | None] = lambda _: None
    """Tensor name to (type or None for keep, why) by recipe, or None."""


_NEVER_QUANTIZED = re.compile(
    # norms, expert routing, tiny projections
    r"_norm\.weight|ffn_gate_inp\.weight|ffn_gate_tid2eid\.weight|altup|laurel|per_layer_model_proj"
    r"|indexer\.[kq]_proj\.weight"
    # convolutions and small matrices of recurrent models
    r"|ssm_conv1d|shortconv\.conv\.weight"
    r"|time_mix_(?:first|w[012]|v[012]|a[012]|g[12]|decay_w[12]|lerp_fused)\.weight"
    # positions
    r"|attn_rel_b\.weight|\.position_embd|sam\.pos_embd|\.rel_pos"
    # pictures and sound
    r"|sam\.neck\.|sam\.net_|\.patch_embd|\.patch_merger|a\.rvq\.codebook|mm\.a\.code_embd"
)

_NEVER_QUANTIZED_GLM5_NEXT = re.compile(
    r"hc_|indexer\.attn_q_b|indexer\.attn_k|indexer\.proj|indexer_compressor_(?:gate|ape)"
    r"|ssm_(?:f_a|f_b|g_a|g_b|beta)\.weight|attn_kv_a_mqa\.weight|attn_[kv]_b\.weight"
)

_AT_LEAST_Q8_0_GLM5_NEXT = re.compile(r"attn_q_a|attn_q_b|nextn\.eh_proj")

_LAYER = re.compile(r"blk\.\s*([+-]?[0-9]+)")

_FALLBACK = {
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
    **dict.fromkeys(("Q2_0", "Q2_K", "Q3_K", "TQ1_0", "TQ2_0"), "Q4_0"),
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}

_DEMANDING = frozenset({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS"})


def layer_of(name: str) -> int | None:
    """The N of ``blk.N.``; None for a tensor outside the layers."""
    match = _LAYER.match(name)
    return int(match[1]) if match else None


def is_excluded(name: str, n_dims: int, architecture: str = "") -> str | None:
    """Why a tensor is never quantized, or None."""
    if n_dims < 2:
        return "kept: one dimension"
    # A five-letter name passes upstream's comparison of positions, by wrap-around.
    if not name.endswith("weight") and len(name) != 5:
        return "kept: not a weight"
    if name in ("position_embd.weight", "token_types.weight"):
        return "kept: position or token type embedding"
    match = _NEVER_QUANTIZED.search(name)
    if match is None and architecture == "glm5-next":
        match = _NEVER_QUANTIZED_GLM5_NEXT.search(name)
    if match is None:
        return None
    return "kept: norm" if match[0] == "_norm.weight" else f"kept: {match[0].strip('.').removesuffix('.weight')} is never quantized"


def demands_imatrix(name: str, type_name: str, file_type_name: str) -> bool:
    """Whether the result without importance weights would be too poor to be written."""
    if category_of(name) in (Category.OUTPUT, Category.TOKEN_EMBD):
        return False
    return type_name in _DEMANDING or (type_name == "Q2_K" and file_type_name == "Q2_K_S")


class Mix:
    """Chooses the types of one model; `choose` is called once per tensor, in the order in which they are written."""

    def __init__(self, file_type: FileType, facts: ModelFacts, names: Sequence[str], *, has_imatrix: bool, wishes: Wishes) -> None:
        self._file_type = file_type
        self._facts = facts
        self._wishes = wishes
        self._has_imatrix = has_imatrix
        self._is_tied = "output.weight" not in names
        self._n_attn_v = sum(category_of(name) in ATTN_V_LIKE for name in names)
        self._seen = {"attn_v": 0, Category.FFN_DOWN: 0, Category.FFN_GATE: 0, Category.FFN_UP: 0}

    def choose(self, tensor: MixTensor) -> Choice:
        """The type of the next tensor.

        Raises
        ------
        InputError
            No type fits the row length.
        """
        default, wishes = self._file_type.default_type, self._wishes
        if default is None:
            return Choice(tensor.type_name, "copied: COPY", excluded=True)
        kept = is_excluded(tensor.name, len(tensor.dims), self._facts.architecture)
        if kept is None and wishes.leave_output_tensor and tensor.name == "output.weight":
            kept = "kept: --leave-output-tensor"
        if kept is not None:
            return Choice(tensor.type_name, kept, excluded=True)

        category = category_of(tensor.name)
        by_pattern = wishes.by_pattern(tensor.name)
        by_recipe = wishes.by_recipe(tensor.name)
        # A pattern may name the large per-layer table apart from the token embeddings.
        named_apart = by_pattern is not None and tensor.name == "per_layer_token_embd.weight"
        if wishes.token_embedding_type is not None and category is Category.TOKEN_EMBD and not named_apart:
            return _exact(tensor, wishes.token_embedding_type, "--token-embedding-type")
        if wishes.output_tensor_type is not None and category is Category.OUTPUT:
            return _exact(tensor, wishes.output_tensor_type, "--output-tensor-type")
        if self._file_type.is_quantized and by_pattern is not None:
            return _fitted(tensor, *by_pattern)
        if by_recipe is not None:
            type_name, why = by_recipe
            return Choice(tensor.type_name, f"kept: {why}", excluded=True) if type_name is None else _fitted(tensor, type_name, why)
        if not self._file_type.is_quantized:
            return Choice(default, f"default of {self._file_type.name}")
        if wishes.pure:
            return _fitted(tensor, default, "--pure")
        return _fitted(tensor, *self._by_rule(tensor, category, default))

    def _by_rule(self, tensor: MixTensor, category: Category, default: str) -> tuple[str, str]:
        file_type, facts = self._file_type.name, self._facts
        if facts.architecture == "glm5-next" and _AT_LEAST_Q8_0_GLM5_NEXT.search(tensor.name):
            return "Q8_0", "rule: glm5-next keeps at least Q8_0 here"
        if category is Category.OUTPUT or (self._is_tied and category is Category.TOKEN_EMBD):
            return self._output_type(tensor, default)
        if file_type == "MXFP4_MOE":
            return self._mxfp4_type(tensor, category)

        moment = self._moment(tensor, category)
        type_name, condition = default, None
        for when, candidate in RULES.get(category, {}).get(file_type, ()):
            if when.holds(moment):
                type_name, condition = candidate, when.text
                break
        if file_type not in LOW_BIT:
            if category in ATTN_V_LIKE and facts.is_70b and type_name in ("Q3_K", "Q4_K"):
                type_name, condition = "Q5_K", "70B"
            if facts.expert_count == 8 and (category in ATTN_V_LIKE or category is Category.ATTN_K):
                type_name, condition = "Q8_0", "8 experts"
        if condition is None:
            return default, f"default of {file_type}"
        return type_name, f"rule: {category.value} of {file_type}" + (f" ({condition})" if condition else "")

    def _output_type(self, tensor: MixTensor, default: str) -> tuple[str, str]:
        file_type = self._file_type.name
        role = "output" if category_of(tensor.name) is Category.OUTPUT else "tied output"
        if self._wishes.output_tensor_type is not None:
            return self._wishes.output_tensor_type, f"--output-tensor-type ({role})"
        why = f"rule: {role} of {file_type}"
        if file_type == "MXFP4_MOE" or default == "Q8_0":
            return "Q8_0", why
        if self._facts.architecture == "falcon":
            return "Q8_0", f"{why} (falcon)"
        block = tensor_types()[default].block_len
        if tensor.dims[0] % block:
            return "Q8_0", f"{why} (row {tensor.dims[0]} is not a multiple of {block})"
        return ("Q5_K" if file_type in LOW_BIT or file_type == "IQ3_XXS" else "Q6_K"), why

    def _mxfp4_type(self, tensor: MixTensor, category: Category) -> tuple[str, str]:
        # bailingmoe3 has three-dimensional tensors that are not experts.
        is_ffn = category in (Category.FFN_UP, Category.FFN_GATE, Category.FFN_DOWN)
        if len(tensor.dims) > 2 and tensor.dims[2] > 1 and (is_ffn or self._facts.architecture != "bailingmoe3"):
            return "MXFP4", "rule: experts of MXFP4_MOE"
        return "Q8_0", "rule: all but the experts of MXFP4_MOE"

    def _moment(self, tensor: MixTensor, category: Category) -> Moment:
        facts, index, count = self._facts, 0, self._facts.block_count
        if category in ATTN_V_LIKE:
            index, count = self._seen["attn_v"], self._n_attn_v
            self._seen["attn_v"] += 1
        elif category in self._seen:
            index = self._seen[category]
            self._seen[category] += 1
            # Experts that are separate tensors are not visited layer by layer, so the name tells the layer.
            if facts.expert_count > 1 and self._file_type.name not in LOW_BIT:
                layer = layer_of(tensor.name)
                index = index if layer is None else layer
        return Moment(index, count, facts.gqa, facts.expert_count, self._has_imatrix, facts.architecture == "falcon")


def _exact(tensor: MixTensor, type_name: str, option: str) -> Choice:
    """A type that the user named for this one tensor: it fits, or it is an error."""
    block = tensor_types()[type_name].block_len
    if tensor.dims[0] % block:
        raise InputError(
            f"{tensor.name}: rows of {tensor.dims[0]} values are not a multiple of {block} ({type_name} block); "
            f"choose another {option}, for example q8_0 or f16"
        )
    return Choice(type_name, option)


def _fitted(tensor: MixTensor, type_name: str, why: str) -> Choice:
    """The chosen type, or the nearest with a smaller block that divides the row."""
    n_cols = tensor.dims[0]
    block = tensor_types()[type_name].block_len
    if n_cols % block == 0:
        return Choice(type_name, why)
    fallback = _FALLBACK.get(type_name, type_name if block <= 32 else None)
    if fallback is None:
        raise InputError(
            f"{tensor.name}: rows of {n_cols} values are not a multiple of {block} ({type_name} block), "
            f"and no type is defined to take its place; choose one with --tensor-type"
        )
    if n_cols % tensor_types()[fallback].block_len:
        fallback = "F16"
    return Choice(fallback, f"fallback from {type_name}: row {n_cols} is not a multiple of {block}; {why}")
