"""What a checkpoint folder's linears can become, and how the names of it are read: ``gptq-w4-g128``, ``w4a16-g128``, ``fp8`` ..."""

import re
from dataclasses import dataclass, replace
from typing import Literal

from quantrs.errors import UsageError

__all__ = ["FolderScheme", "LayerScheme", "folder_scheme", "layer_scheme"]

Format = Literal["gptq", "gptq_v2", "awq", "compressed-tensors"]

_GROUP_SIZES = (16, 32, 64, 128, 256, 512, 1024)
_BITS: dict[Format, tuple[int, ...]] = {
    "gptq": (2, 3, 4, 8),
    "gptq_v2": (2, 3, 4, 8),
    "awq": (4,),
    "compressed-tensors": (2, 3, 4, 5, 6, 7, 8),
}
_EXAMPLES = "gptq-w4-g128, awq-w4-g128, w4a16-g128, w8a16, w8a8, fp8"


@dataclass(frozen=True, kw_only=True)
class LayerScheme:
    """How one linear's weights are stored."""

    bits: int = 4
    group_size: int = 128
    """Weights of a row that share a scale; -1 for all of it."""
    symmetric: bool = True
    desc_act: bool = False
    """Columns are solved in descending order of the Hessian's diagonal, and groups lie in that order."""
    value_type: Literal["int", "float"] = "int"
    """``float``: E4M3, 8 bits."""

    @property
    def text(self) -> str:
        """As a recipe may write it.

        Examples
        --------
        >>> LayerScheme(bits=8, group_size=-1, symmetric=False).text
        'w8-g-1-asym'
        """
        if self.value_type == "float":
            return "fp8"
        return f"w{self.bits}-g{self.group_size}" + ("" if self.symmetric else "-asym") + ("-act" if self.desc_act else "")

    def n_groups(self, in_features: int) -> int:
        """Scales per row."""
        return 1 if self.group_size == -1 else in_features // self.group_size


@dataclass(frozen=True, kw_only=True)
class FolderScheme:
    """A folder's format, and what a layer becomes that no rule speaks of."""

    name: str
    """As the user wrote it, in lower case."""
    format: Format
    layer: LayerScheme
    activations: Literal["int8", "fp8"] | None = None
    """What engines round inputs to while they run; nothing of it is stored."""

    def with_layer(self, text: str, *, where: str) -> LayerScheme:
        """What a rule of a recipe asks for, such as ``w8-g64``; what it leaves out is as in the rest of the folder.

        Raises
        ------
        UsageError
            It cannot be read, or the format cannot have it beside the rest.
        """
        layer = layer_scheme(text, self.layer, where=where)
        _check(layer, self.format, where)
        if self.format == "awq" or self.activations:
            raise UsageError(f"{where}: found {text!r}, but all layers of {self.name} are alike; keep = true leaves one as it is")
        return layer

    def layer_text(self, text: str, *, where: str) -> str:
        """`with_layer`, as the plan spells it."""
        return self.with_layer(text, where=where).text


_PARTS = re.compile(r"w(?P<bits>[0-9]{1,2})(?:-g(?P<group>-1|[0-9]{1,5}))?(?P<rest>(?:-(?:sym|asym|act))*)")
_WEIGHT_ONLY = re.compile(r"w(?P<bits>[0-9]{1,2})a16(?P<rest>-.*)?")


def folder_scheme(text: str) -> FolderScheme | None:
    """The scheme of this name, in any letter case; None for names that are no checkpoint format's, such as ``Q4_K_M``.

    Raises
    ------
    UsageError
        The format is known, but it cannot have that.

    Examples
    --------
    >>> folder_scheme("GPTQ-w3-g64-act").layer
    LayerScheme(bits=3, group_size=64, symmetric=True, desc_act=True, value_type='int')
    >>> folder_scheme("w8a8").activations, folder_scheme("Q4_K_M")
    ('int8', None)
    """
    name = text.strip().lower()
    where = f"--to {text}"
    if name == "fp8":
        layer = LayerScheme(bits=8, group_size=-1, value_type="float")
        return FolderScheme(name=name, format="compressed-tensors", layer=layer, activations="fp8")
    if name == "w8a8":
        return FolderScheme(name=name, format="compressed-tensors", layer=LayerScheme(bits=8, group_size=-1), activations="int8")
    found = _WEIGHT_ONLY.fullmatch(name)
    if found:
        layer = layer_scheme(f"w{found['bits']}{found['rest'] or ''}", LayerScheme(), where=where)
        _check(layer, "compressed-tensors", where)
        return FolderScheme(name=name, format="compressed-tensors", layer=layer)
    for prefix, format_ in (("gptq-", "gptq"), ("awq-", "awq")):
        if name.startswith(prefix):
            return _group_format(name, name.removeprefix(prefix), format_, where)  # type: ignore[arg-type]
    if re.match(r"(gptq|awq|w[0-9]+a[0-9]+)\b", name):
        raise UsageError(f"{where}: expected a name such as {_EXAMPLES}")
    return None


def _group_format(name: str, rest: str, format_: Format, where: str) -> FolderScheme:
    if format_ == "gptq" and rest.endswith("-v2"):
        rest, format_ = rest.removesuffix("-v2"), "gptq_v2"
    layer = layer_scheme(rest, LayerScheme(symmetric=format_ != "awq"), where=where)
    _check(layer, format_, where)
    return FolderScheme(name=name, format=format_, layer=layer)


def layer_scheme(text: str, usual: LayerScheme, *, where: str) -> LayerScheme:
    """Read ``w4-g128-asym-act``; what is left out is taken from `usual`.

    Raises
    ------
    UsageError
        It is no such text.
    """
    found = _PARTS.fullmatch(text.strip().lower())
    if found is None:
        raise UsageError(f"{where}: found {text!r}, expected bits, group size and flags: w4-g128, w4-g32-asym, w4-g128-act")
    flags = [flag for flag in found["rest"].split("-") if flag]
    if len(set(flags)) < len(flags) or {"sym", "asym"} <= set(flags):
        raise UsageError(f"{where}: found {text!r}; each of sym or asym, and act, at most once")
    layer = replace(usual, bits=int(found["bits"]), value_type="int")
    if found["group"] is not None:
        layer = replace(layer, group_size=int(found["group"]))
    if "sym" in flags or "asym" in flags:
        layer = replace(layer, symmetric="sym" in flags)
    return replace(layer, desc_act=True) if "act" in flags else layer


def _check(layer: LayerScheme, format_: Format, where: str) -> None:
    bits = _BITS[format_]
    if layer.bits not in bits:
        raise UsageError(f"{where}: found {layer.bits} bits, {format_} has {', '.join(map(str, bits))}")
    if layer.group_size not in (-1, *_GROUP_SIZES):
        raise UsageError(
            f"{where}: found groups of {layer.group_size} weights, expected {', '.join(map(str, _GROUP_SIZES))}, or -1 for whole rows"
        )
    if format_ == "awq" and (layer.symmetric or layer.desc_act or layer.group_size == -1):
        raise UsageError(f"{where}: AWQ files are asymmetric, in groups, and know no activation order: awq-w4-g128, awq-w4-g64, awq-w4-g32")
