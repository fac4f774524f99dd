"""``quantization_config`` of compressed-tensors: what a group of layers is quantized to, written and read.

Written key by key as compressed-tensors 0.19 writes it through llm-compressor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from quantrs.errors import InputError

if TYPE_CHECKING:
    from quantrs.huggingface.config import Config

__all__ = ["VERSION", "Format", "WeightScheme", "quantization_config", "read_schemes"]

VERSION = "0.19.0"
"""Of compressed-tensors, whose files these are."""

Format = Literal["pack-quantized", "int-quantized", "float-quantized", "nvfp4-pack-quantized", "mxfp4-pack-quantized"]

_FORMATS: tuple[Format, ...] = ("pack-quantized", "int-quantized", "float-quantized", "nvfp4-pack-quantized", "mxfp4-pack-quantized")
_NAIVE = "naive-quantized"
_MAX_GROUP_SIZE = 1 << 20
_MAX_GROUPS = 4096
_MAX_SCHEMES = 64  # each layer is compared with all


@dataclass(frozen=True, kw_only=True)
class WeightScheme:
    """How the weights of a group of layers are quantized."""

    format: Format
    bits: int
    symmetric: bool = True
    group_size: int | None = None
    """Input channels that share a scale; None: all of a row (strategy ``channel``), or a block."""
    block: tuple[int, int] | None = None
    """Rows and columns that share a scale (strategy ``block``)."""
    per_tensor: bool = False
    """One scale for all (strategy ``tensor``)."""
    act_order: str | None = None
    """``actorder``: ``group`` if ``weight_g_idx`` says the group of every channel; ``weight`` and None: channel // group_size.

    compressed-tensors refuses ``group`` from 0.20 on, so solve in activation order with static groups, and write ``weight``.
    """

    @property
    def is_float(self) -> bool:
        """Codes are floating-point numbers."""
        return self.format in ("float-quantized", "nvfp4-pack-quantized", "mxfp4-pack-quantized")

    def weights(self) -> dict[str, object]:
        """The object ``weights`` of a group."""
        strategy = (
            *(["block"] if self.block else []),
            *(["tensor"] if self.per_tensor else []),
            *(["tensor_group"] if self.format == "nvfp4-pack-quantized" else []),
            *(["group"] if self.group_size else []),
            "channel",
        )[0]
        scale_dtype = {"nvfp4-pack-quantized": "torch.float8_e4m3fn", "mxfp4-pack-quantized": "torch.uint8"}.get(self.format)
        return _arguments(
            bits=self.bits,
            is_float=self.is_float,
            symmetric=self.symmetric,
            strategy=strategy,
            group_size=self.group_size,
            block=self.block,
            dynamic=False,
            actorder=self.act_order,
            observer="memoryless_minmax",
            scale_dtype=scale_dtype,
            zp_dtype=None if self.symmetric else "torch.int8",
        )

    def input_activations(self) -> dict[str, object] | None:
        """The object ``input_activations``: of 8-bit layers per token, or per group of 128 beside blocks; of the others none."""
        if self.format not in ("int-quantized", "float-quantized"):
            return None
        return _arguments(
            bits=8,
            is_float=self.is_float,
            symmetric=True,
            strategy="group" if self.block else "token",
            group_size=self.block[1] if self.block else None,
            block=None,
            dynamic=True,
            actorder=None,
            observer=None,
            scale_dtype=None,
            zp_dtype=None,
        )


def _arguments(
    *,
    bits: int,
    is_float: bool,
    symmetric: bool,
    strategy: str,
    group_size: int | None,
    block: tuple[int, int] | None,
    dynamic: bool,
    actorder: str | None,
    observer: str | None,
    scale_dtype: str | None,
    zp_dtype: str | None,
) -> dict[str, object]:
    return {
        "actorder": actorder,
        "block_structure": None if block is None else list(block),
        "dynamic": dynamic,
        "group_size": group_size,
        "num_bits": bits,
        "observer": observer,
        "observer_kwargs": {},
        "scale_dtype": scale_dtype,
        "strategy": strategy,
        "symmetric": symmetric,
        "type": "float" if is_float else "int",
        "zp_dtype": zp_dtype,
    }


def quantization_config(layers: Mapping[str, WeightScheme], *, ignore: Sequence[str]) -> dict[str, object]:
    """``quantization_config`` of ``config.json``.

    Parameters
    ----------
    layers : mapping
        The scheme of every quantized layer by module name. If all have the same, the one group is of all ``Linear``; otherwise every group
        names its layers, because engines that fuse layers look each part up by its name.
    ignore : sequence of str
        Linear layers that are not quantized, such as ``lm_head``.
    """
    groups: dict[WeightScheme, list[str]] = {}
    for name, scheme in layers.items():
        groups.setdefault(scheme, []).append(name)
    formats = {scheme.format for scheme in groups}
    return {
        "config_groups": {
            f"group_{index}": {
                "format": scheme.format,
                "input_activations": scheme.input_activations(),
                "output_activations": None,
                "targets": ["Linear"] if len(groups) == 1 else names,
                "weights": scheme.weights(),
            }
            for index, (scheme, names) in enumerate(groups.items())
        },
        "format": formats.pop() if len(formats) == 1 else "mixed-precision",
        "global_compression_ratio": None,
        "ignore": list(ignore),
        "kv_cache_scheme": None,
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "sparsity_config": {},
        "transform_config": {},
        "version": VERSION,
    }


def read_schemes(config: "Config") -> list[WeightScheme]:
    """The different schemes of the groups that quantize weights. Names of tensors tell what they are of, so ``targets`` are not read.

    Raises
    ------
    FormatError
        A value is missing or impossible.
    InputError
        Weights are sparse or transformed, or in a format that cannot be read.
    """
    sparsity = config.part("sparsity_config")
    if sparsity and sparsity.text("format", default="dense") != "dense":
        raise InputError(f"{config.path}: the weights are sparse ({sparsity.text('format')!r}), which cannot be read")
    if config.get("transform_config") not in (None, {}, {"config_groups": {}}):
        raise InputError(f"{config.path}: 'transform_config' rotates activations while the model runs, which is not supported")
    outer = config.text("format", default="pack-quantized")
    groups = config.part("config_groups")
    if groups is None or not 1 <= len(groups.values) <= _MAX_GROUPS:
        raise config.wrong("config_groups", config.get("config_groups"), f"an object of 1 to {_MAX_GROUPS} groups")
    found = []
    for name in groups.values:
        group = groups.part(name)
        weights = None if group is None else group.part("weights")
        if group is not None and weights is not None:
            found.append(_read_scheme(weights, group.text("format", default=outer)))
    schemes = list(dict.fromkeys(found))
    if len(schemes) > _MAX_SCHEMES:
        raise config.wrong("config_groups", f"{len(schemes)} different schemes", f"at most {_MAX_SCHEMES}")
    return schemes


def _read_scheme(weights: "Config", format_: str) -> WeightScheme:
    bits = weights.integer("num_bits", default=8, at_most=64)
    is_float = weights.text("type", default="int") == "float"
    if format_ in (_NAIVE, "dense"):
        format_ = "float-quantized" if is_float else "int-quantized"
    named = next((known for known in _FORMATS if known == format_), None)
    if named is None:
        raise InputError(f"{weights.path}: weights are stored as {format_!r}, which cannot be read; expected one of {', '.join(_FORMATS)}")
    widths = {"pack-quantized": range(2, 9), "nvfp4-pack-quantized": (4,), "mxfp4-pack-quantized": (4,)}.get(named, (8,))
    if bits not in widths:
        raise weights.wrong("num_bits", bits, f"one of {', '.join(map(str, widths))} for {named}")
    strategy = weights.text("strategy")
    group_size = weights.integer("group_size", default=-1, at_least=-1, at_most=_MAX_GROUP_SIZE)
    if strategy == "group" and group_size == 0:
        raise weights.wrong("group_size", group_size, "-1, or at least 1")
    scheme = WeightScheme(
        format=named,
        bits=bits,
        symmetric=weights.flag("symmetric", default=True),
        group_size=group_size if group_size > 0 else None,
        block=_read_block(weights) if strategy == "block" else None,
        per_tensor=strategy == "tensor",
        act_order=_read_act_order(weights),
    )
    if scheme.is_float != is_float:
        raise weights.wrong("type", weights.get("type"), f"{'float' if scheme.is_float else 'int'} for {named}")
    return scheme


def _read_act_order(weights: "Config") -> str | None:
    value = weights.get("actorder")
    if isinstance(value, bool):  # old versions: true for group
        return "group" if value else None
    return weights.text("actorder") or None


def _read_block(weights: "Config") -> tuple[int, int]:
    sizes = weights.items("block_structure", n_items=2) or []
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= _MAX_GROUP_SIZE:
            raise weights.wrong("block_structure", sizes, f"two whole numbers of 1 to {_MAX_GROUP_SIZE}")
    if not sizes:
        raise weights.wrong("block_structure", None, "rows and columns of a block")
    rows, cols = (int(str(size)) for size in sizes)
    return rows, cols
