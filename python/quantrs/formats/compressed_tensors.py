"""compressed-tensors checkpoints as llm-compressor writes them; nothing is transposed, rows are outputs.

``pack-quantized``: ``weight_packed`` int32 ``[out, ceil(in * bits / 32)]``, ``weight_scale`` ``[out, n_groups]``, ``weight_shape`` int64,
without symmetry ``weight_zero_point`` int32 ``[ceil(out * bits / 32), n_groups]``, in activation order ``weight_g_idx`` int32 ``[in]``.
``int-quantized`` and ``float-quantized``: ``weight`` int8 or float8 ``[out, in]`` and ``weight_scale``. ``nvfp4-pack-quantized`` and
``mxfp4-pack-quantized`` are read only. Scales have the model's type. The settings are in `quantrs.formats.compressed_config`.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from quantrs import _native
from quantrs.errors import FormatError, InputError
from quantrs.formats.compressed_config import WeightScheme, read_schemes
from quantrs.formats.g_idx import read_g_idx
from quantrs.formats.layer import CheckpointFormat, Kind, LayerTensors, QuantizedFolder, QuantizedLayer, group_size_of, modules_with
from quantrs.formats.packing import pack_down, unpack_down, unpack_nibbles
from quantrs.formats.scales import checked_scales
from quantrs.huggingface.folder import read_bytes_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from quantrs.group_quantized import GroupQuantized
    from quantrs.huggingface.config import Config
    from quantrs.huggingface.folder import Folder, HfTensor

    Read = Callable[[HfTensor], NDArray[np.generic]]

__all__ = ["COMPRESSED_TENSORS", "FP4_VALUES", "check_shape", "find_layers", "pack_fp8", "pack_layer", "unpack_layer"]

_FLOATS = ("BF16", "F16", "F32")
_OF_ACTIVATIONS = (
    *("input_scale", "input_zero_point", "input_global_scale", "output_scale", "output_zero_point"),
    *("q_scale", "k_scale", "v_scale", "q_zero_point", "k_zero_point", "v_zero_point"),
)
FP4_VALUES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
"""By code: sign, then two bits of exponent and one of mantissa."""


def check_shape(name: str, in_features: int, *, bits: int, group_size: int) -> None:
    """Refuse a layer that ``pack-quantized`` cannot hold.

    Raises
    ------
    InputError
        Bits are not 2 to 8, or groups (-1: one of all input channels) do not divide the input.
    """
    if not 2 <= bits <= 8:
        raise InputError(f"{name}: compressed-tensors files hold 2 to 8 bits, not {bits}")
    if group_size != -1 and (group_size < 1 or in_features % group_size):
        raise InputError(f"{name}: in_features {in_features} is not a multiple of the group size {group_size}; take another, or -1")


def pack_layer(
    q: "GroupQuantized", scheme: WeightScheme, dtype: "np.dtype[np.generic]", *, name: str = "weight"
) -> "dict[str, NDArray[np.generic]]":
    """Tensors of one integer layer by the last part of their names.

    Parameters
    ----------
    q : GroupQuantized
        The layer.
    scheme : WeightScheme
        ``pack-quantized`` or ``int-quantized``; what it says of bits and symmetry is that of q.
    dtype : dtype
        Of the scales: the model's own, bfloat16 of ``ml_dtypes`` as a rule.
    name : str
        Begins the message of an error.

    Raises
    ------
    InputError
        The layer does not fit the scheme, or a scale is beyond `dtype`.
    """
    if (q.bits, q.symmetric) != (scheme.bits, scheme.symmetric):
        found, expected = (f"{bits} bits, symmetric: {sym}" for bits, sym in ((q.bits, q.symmetric), (scheme.bits, scheme.symmetric)))
        raise InputError(f"{name}: found {found}, expected {expected} as config.json will say")
    scales = checked_scales(q.scales, dtype, name)
    if scheme.format == "int-quantized":
        if q.bits != 8 or not q.symmetric or not q.in_order:
            raise InputError(f"{name}: int-quantized holds 8 bits, symmetric and in the order of channels; found something else")
        return {"weight": (q.codes ^ np.uint8(0x80)).view(np.int8), "weight_scale": scales}
    if scheme.format != "pack-quantized":
        raise InputError(f"{name}: integers cannot be written as {scheme.format}; expected pack-quantized or int-quantized")
    if not q.in_order and scheme.act_order != "group":
        raise InputError(f"{name}: its groups are in activation order, but the scheme's act_order is not 'group'")
    tensors: dict[str, NDArray[np.generic]] = {
        "weight_packed": _native.pack_codes(q.codes, q.bits),
        "weight_scale": scales,
        "weight_shape": np.array(q.codes.shape, np.int64),
    }
    if not q.symmetric:
        tensors["weight_zero_point"] = pack_down(np.ascontiguousarray(q.zeros.T), q.bits)
    if scheme.act_order == "group":
        tensors["weight_g_idx"] = q.g_idx.astype(np.int32)
    return tensors


def pack_fp8(codes: "NDArray[np.generic]", scales: "NDArray[np.generic]") -> "dict[str, NDArray[np.generic]]":
    """Tensors of one ``float-quantized`` layer by the last part of their names, from `quantrs.formats.float8.quantize_fp8`."""
    return {"weight": codes, "weight_scale": scales}


def find_layers(config: "Config", folder: "Folder") -> QuantizedFolder:
    """Every layer that has a ``weight_scale``; `config` is ``quantization_config``.

    Names of tensors decide what is quantized, their types and shapes how, so that no regular expression of ``targets`` or ``ignore`` is
    run; every layer has to agree with one of the groups.

    Raises
    ------
    FormatError
        A value or a tensor is missing or does not fit the others.
    InputError
        Weights are sparse or transformed, or in a format that cannot be read.
    """
    schemes = read_schemes(config)
    names = modules_with(folder, ["weight_packed", "weight_scale"])
    if not names:
        raise FormatError(f"{config.path}: says that the model is quantized, but no tensor is called *.weight_packed or *.weight_scale")
    layers = {name: _find_layer(LayerTensors(folder, name), schemes) for name in names}
    known = {tensor for layer in layers.values() for tensor in layer.tensors}
    others = tuple(name for name in folder.tensors if name.rpartition(".")[2] in _OF_ACTIVATIONS and name not in known)
    return QuantizedFolder("compressed-tensors", layers, others)


def _find_layer(tensors: LayerTensors, schemes: Sequence[WeightScheme]) -> QuantizedLayer:
    packed = tensors.maybe("weight_packed")
    if packed is None:
        return _find_bytes(tensors, schemes)
    if packed.dtype == "U8":
        return _find_fp4(tensors, schemes)
    return _find_packed(tensors, schemes)


def _find_packed(tensors: LayerTensors, schemes: Sequence[WeightScheme]) -> QuantizedLayer:
    packed = tensors.take("weight_packed", ("I32",), (None, None))
    n_out, n_words = packed.shape
    n_in = _in_features(tensors, n_out)
    fitting = [scheme for scheme in schemes if scheme.format == "pack-quantized" and -(-n_in * scheme.bits // 32) == n_words]
    if not fitting:
        widths = sorted({scheme.bits for scheme in schemes if scheme.format == "pack-quantized"})
        expected = " or ".join(f"[{n_out}, {-(-n_in * bits // 32)}] for {bits} bits" for bits in widths)
        raise tensors.wrong("weight_packed", f"I32 of shape {expected or 'none: no group is pack-quantized'}, as config.json says")
    scales = tensors.take("weight_scale", _FLOATS, (n_out, None))
    n_groups = scales.shape[1]
    group_size = _group_size(tensors, n_groups, n_in, fitting)
    scheme = _choose(tensors, fitting, n_in, group_size)
    zeros = tensors.maybe("weight_zero_point")
    if scheme.symmetric:
        zeros = None
    elif zeros is not None and zeros.dtype == "I8":
        zeros = tensors.take("weight_zero_point", ("I8",), (n_out, n_groups))
    else:
        zeros = tensors.take("weight_zero_point", ("I32",), (-(-n_out * scheme.bits // 32), n_groups))
    g_idx = tensors.take("weight_g_idx", ("I32",), (n_in,)) if tensors.maybe("weight_g_idx") is not None else None
    if g_idx is None and scheme.act_order == "group":
        raise FormatError(
            f"{tensors.folder.path}: {tensors.name}.weight_g_idx is missing, expected it with 'actorder' group; the file is incomplete"
        )
    return QuantizedLayer(
        name=tensors.name,
        kind="packed",
        out_features=n_out,
        in_features=n_in,
        bits=scheme.bits,
        group_size=group_size,
        symmetric=scheme.symmetric,
        codes=packed,
        scales=scales,
        zeros=zeros,
        g_idx=g_idx,
        others=_others(tensors, scheme),
    )


def _in_features(tensors: LayerTensors, n_out: int) -> int:
    """Input channels as ``weight_shape`` has them."""
    shape = tensors.take("weight_shape", ("I64", "I32"), (2,))
    raw = read_bytes_of(tensors.folder.sources[shape.source], shape.offset, shape.nbytes)
    rows, cols = np.frombuffer(raw, "<i8" if shape.dtype == "I64" else "<i4").tolist()
    if rows != n_out or not 1 <= cols < 1 << 31:
        raise FormatError(
            f"{tensors.folder.path}: {tensors.name}.weight_shape holds [{rows}, {cols}], expected [{n_out}, in_features] for the rows of "
            "weight_packed"
        )
    return int(cols)


def _group_size(tensors: LayerTensors, n_groups: int, n_in: int, schemes: Sequence[WeightScheme]) -> int:
    group_size = group_size_of(n_groups, n_in, [scheme.group_size or -1 for scheme in schemes])
    if group_size is None:
        sizes = ", ".join(str(scheme.group_size or n_in) for scheme in schemes)
        raise tensors.wrong("weight_scale", f"a column for every group of {n_in} input channels; config.json names groups of {sizes}")
    return group_size


def _choose(tensors: LayerTensors, schemes: Sequence[WeightScheme], n_in: int, group_size: int) -> WeightScheme:
    """Of the schemes that the codes fit, that whose groups and zero points the layer has."""
    has_zeros = tensors.maybe("weight_zero_point") is not None

    def misfit(scheme: WeightScheme) -> tuple[bool, bool]:
        return scheme.symmetric == has_zeros, (scheme.group_size or n_in) != group_size

    return min(schemes, key=misfit)


def _others(tensors: LayerTensors, scheme: WeightScheme) -> tuple[str, ...]:
    return tensors.names(("weight_shape", *_OF_ACTIVATIONS, *(["weight_zero_point"] if scheme.symmetric else [])))


def _find_bytes(tensors: LayerTensors, schemes: Sequence[WeightScheme]) -> QuantizedLayer:
    """int8 or float8, a byte for every weight."""
    weight = tensors.take("weight", ("I8", "F8_E4M3"), (None, None))
    n_out, n_in = weight.shape
    wanted = "int-quantized" if weight.dtype == "I8" else "float-quantized"
    fitting = [scheme for scheme in schemes if scheme.format == wanted]
    if not fitting:
        raise tensors.wrong("weight", f"what config.json says, {' or '.join(sorted({scheme.format for scheme in schemes}))}")
    scales = tensors.maybe("weight_scale")
    if scales is not None and scales.dtype in _FLOATS and scales.shape in ((), (1,), (1, 1)):
        block_rows, group_size = n_out, n_in
    else:
        scales = tensors.take("weight_scale", _FLOATS, (None, None))
        block_rows, group_size = _block_of(tensors, scales.shape, n_out, n_in, fitting)
    scheme = _choose(tensors, fitting, n_in, group_size)
    zeros = None
    if not scheme.symmetric:
        zeros = tensors.take("weight_zero_point", ("I8",), scales.shape)
    return QuantizedLayer(
        name=tensors.name,
        kind="int8" if weight.dtype == "I8" else "fp8",
        out_features=n_out,
        in_features=n_in,
        bits=8,
        group_size=group_size,
        symmetric=scheme.symmetric,
        codes=weight,
        scales=scales,
        zeros=zeros,
        block_rows=block_rows,
        others=_others(tensors, scheme),
    )


def _block_of(tensors: LayerTensors, shape: tuple[int, ...], n_out: int, n_in: int, schemes: Sequence[WeightScheme]) -> tuple[int, int]:
    """Rows and columns that share one of scales of this shape."""
    blocks = [scheme.block for scheme in schemes if scheme.block is not None]
    for rows, cols in blocks:
        if shape == (-(-n_out // rows), -(-n_in // cols)):
            return rows, min(cols, n_in)
    if shape[0] != n_out:
        expected = " or ".join(f"[{-(-n_out // rows)}, {-(-n_in // cols)}]" for rows, cols in blocks)
        raise tensors.wrong("weight_scale", f"[{n_out}, groups], [1]" + (f" or {expected}" if expected else ""))
    return 1, _group_size(tensors, shape[1], n_in, schemes)


def _find_fp4(tensors: LayerTensors, schemes: Sequence[WeightScheme]) -> QuantizedLayer:
    packed = tensors.take("weight_packed", ("U8",), (None, None))
    n_out, n_in = packed.shape[0], 2 * packed.shape[1]
    has_global = tensors.maybe("weight_global_scale") is not None
    kind: Kind = "nvfp4" if has_global else "mxfp4"
    group_size, dtypes = (16, ("F8_E4M3",)) if has_global else (32, ("U8", "F8_E8M0"))
    fitting = [scheme for scheme in schemes if scheme.format == f"{kind}-pack-quantized"]
    if not fitting:
        formats = " or ".join(sorted({scheme.format for scheme in schemes}))
        raise tensors.wrong("weight_packed", f"what config.json says, {formats}; a missing tensor may be the reason")
    if n_in % group_size:
        raise tensors.wrong("weight_packed", f"{group_size // 2} bytes for each group of a row")
    global_scale = None
    if has_global:
        shape = () if tensors.folder.tensors[f"{tensors.name}.weight_global_scale"].shape == () else (1,)
        global_scale = tensors.take("weight_global_scale", ("F32",), shape)
    return QuantizedLayer(
        name=tensors.name,
        kind=kind,
        out_features=n_out,
        in_features=n_in,
        bits=4,
        group_size=group_size,
        symmetric=True,
        codes=packed,
        scales=tensors.take("weight_scale", dtypes, (n_out, n_in // group_size)),
        global_scale=global_scale,
        others=_others(tensors, fitting[0]),
    )


def unpack_layer(layer: QuantizedLayer, read: "Read") -> "GroupQuantized | NDArray[np.float32]":
    """The whole layer: integers in groups, or the values of floating-point codes and of integers with one scale for several rows.

    Raises
    ------
    FormatError
        A value of ``weight_g_idx`` is no group.
    """
    if layer.kind in ("fp8", "nvfp4", "mxfp4") or layer.block_rows > 1:
        return _values(layer, read)
    from quantrs.group_quantized import GroupQuantized

    middle = np.uint8(1 << (layer.bits - 1))
    if layer.kind == "int8":
        codes = read(layer.codes).view(np.uint8) ^ middle
    else:
        codes = _native.unpack_codes(read(layer.codes).astype(np.int32, copy=False), layer.bits, layer.in_features)
    return GroupQuantized(
        codes=codes,
        scales=read(layer.scales).astype(np.float32).reshape(layer.out_features, layer.n_groups),
        zeros=_read_zeros(layer, read, middle),
        g_idx=read_g_idx(layer, read),
        bits=layer.bits,
        group_size=layer.group_size,
        symmetric=layer.symmetric,
    )


def _read_zeros(layer: QuantizedLayer, read: "Read", middle: np.uint8) -> "NDArray[np.uint8]":
    """Zero points of unsigned codes, ``[out, n_groups]``."""
    if layer.zeros is None:
        return np.full((layer.out_features, layer.n_groups), middle)
    stored = read(layer.zeros)
    if layer.zeros.dtype == "I8":
        return stored.view(np.uint8).reshape(layer.out_features, layer.n_groups) + middle
    return np.ascontiguousarray(unpack_down(stored.astype(np.int32, copy=False), layer.bits, layer.out_features).T)


def _values(layer: QuantizedLayer, read: "Read") -> "NDArray[np.float32]":
    codes, scales = read(layer.codes), _read_scales(layer, read)
    if layer.kind in ("nvfp4", "mxfp4"):
        return FP4_VALUES[unpack_nibbles(codes.view(np.uint8))] * _spread(scales, layer)
    values = codes.astype(np.float32)
    if layer.zeros is not None:
        values -= _spread(np.atleast_2d(read(layer.zeros).astype(np.float32)), layer)
    return values * _spread(scales, layer)


def _read_scales(layer: QuantizedLayer, read: "Read") -> "NDArray[np.float32]":
    stored = read(layer.scales)
    if layer.kind == "mxfp4":
        return np.ldexp(np.float32(1), stored.view(np.uint8).astype(np.int32) - 127).astype(np.float32)
    scales = np.atleast_2d(stored.astype(np.float32))
    return scales if layer.global_scale is None else scales / read(layer.global_scale).astype(np.float32).reshape(())


def _spread(per_block: "NDArray[np.float32]", layer: QuantizedLayer) -> "NDArray[np.float32]":
    """A value of every block, given to all its weights."""
    rows = per_block.repeat(layer.block_rows, 0)[: layer.out_features]
    return rows.repeat(layer.group_size, 1)[:, : layer.in_features]


COMPRESSED_TENSORS = CheckpointFormat(method="compressed-tensors", find_layers=find_layers, unpack_layer=unpack_layer)
