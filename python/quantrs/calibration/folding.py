"""Scales that go into the columns of some weights and come out of whatever makes their input: exact but for rounding.

``y = W x = (W * s) (x / s)``: the columns of W are multiplied, and x is divided where it comes from. All arrays are float32; results are
new arrays. Each value is multiplied or divided once, so a factor and its reverse agree within one rounding (2^-24 relative).

Sources: Lin et al. 2023, "AWQ" (arXiv 2306.00978), section 3.2; Xiao et al. 2022, "SmoothQuant" (arXiv 2211.10438), section 4.
"""

from collections.abc import Mapping, MutableMapping

import numpy as np
import numpy.typing as npt

from quantrs.errors import InputError
from quantrs.families.scale_groups import ScaleGroup
from quantrs.families.spec import Linear, Norm

__all__ = ["fold", "fold_into_norm", "fold_into_rows", "scale_columns", "tensors_of"]

_Array = npt.NDArray[np.float32]


def fold_into_norm(weight: _Array, bias: _Array | None, s: _Array) -> tuple[_Array, _Array | None]:
    """Divide what a norm puts out by `s`: its weight, and the bias of a LayerNorm.

    The weight is what the normed value is multiplied with. Checkpoints of Gemma store it less 1; GGUF files do not.

    Parameters
    ----------
    weight, bias : ndarray
        float32 ``[n_channels]``.
    s : ndarray
        float32 ``[n_channels]``, positive.

    Raises
    ------
    InputError
        `s` is of another length, or not of positive finite numbers.
    """
    _check(s, weight.shape[-1], "norm")
    return weight / s, None if bias is None else bias / s


def fold_into_rows(weight: _Array, bias: _Array | None, s: _Array) -> tuple[_Array, _Array | None]:
    """Divide what a linear puts out by `s`: its rows and its bias.

    Parameters
    ----------
    weight : ndarray
        float32 ``[out_features, in_features]``.
    bias : ndarray
        float32 ``[out_features]``.
    s : ndarray
        float32 ``[out_features]``, positive.

    Raises
    ------
    InputError
        `s` is of another length, or not of positive finite numbers.
    """
    _check(s, weight.shape[0], "rows")
    return weight / s[:, np.newaxis], None if bias is None else bias / s


def scale_columns(weight: _Array, s: _Array) -> _Array:
    """Multiply the columns of a weight, float32 ``[..., in_features]``, by `s`, float32 ``[in_features]``.

    Raises
    ------
    InputError
        `s` is of another length, or not of positive finite numbers.
    """
    _check(s, weight.shape[-1], "columns")
    return weight * s


def tensors_of(group: ScaleGroup) -> list[str]:
    """Names of all tensors that `fold` of this group changes."""
    feeder = group.feeder
    weight = feeder.weight if isinstance(feeder, Norm) else feeder.tensor
    names = [weight, *([feeder.bias] if feeder.bias else [])]
    return list(dict.fromkeys([*names, *(linear.tensor for linear in (*group.readers, *group.kept))]))


def fold(group: ScaleGroup, s: _Array, tensors: Mapping[str, _Array]) -> dict[str, _Array]:
    """Fold scales into both sides of a group.

    Parameters
    ----------
    group : ScaleGroup
        Who feeds and who reads.
    s : ndarray
        float32 ``[group.n_scales]``, positive: what the readers' columns are multiplied with.
    tensors : mapping
        At least those that `tensors_of` names, by GGUF name: float32 ``[out_features, in_features]``, with the experts as first axis where
        there are some; norms and biases ``[n]``. A fused matrix is whole.

    Returns
    -------
    dict
        The tensors of `tensors_of`, changed.

    Raises
    ------
    InputError
        `s` is of another length, or not of positive finite numbers.
    """
    changed = {name: tensors[name] for name in tensors_of(group)}
    if isinstance(group.feeder, Norm):
        _divide_norm(group.feeder, s, changed)
    else:
        _divide_rows(group.feeder, group.expert, s, changed)
    per_channel = group.expand(s)
    for name in dict.fromkeys(linear.tensor for linear in (*group.readers, *group.kept)):
        weight = changed[name]
        if group.expert is None:
            changed[name] = scale_columns(weight, per_channel)
        else:
            changed[name] = _with(weight, group.expert, scale_columns(weight[group.expert], per_channel))
    return changed


def _divide_norm(norm: Norm, s: _Array, changed: MutableMapping[str, _Array]) -> None:
    weight, bias = fold_into_norm(changed[norm.weight], changed[norm.bias] if norm.bias else None, s)
    changed[norm.weight] = weight
    if norm.bias and bias is not None:
        changed[norm.bias] = bias


def _divide_rows(linear: Linear, expert: int | None, s: _Array, changed: MutableMapping[str, _Array]) -> None:
    rows = slice(linear.first_row, linear.first_row + linear.n_rows)
    where = rows if expert is None else (expert, rows)
    bias = changed[linear.bias][where] if linear.bias else None
    divided, divided_bias = fold_into_rows(changed[linear.tensor][where], bias, s)
    changed[linear.tensor] = _with(changed[linear.tensor], where, divided)
    if linear.bias and divided_bias is not None:
        changed[linear.bias] = _with(changed[linear.bias], where, divided_bias)


def _with(array: _Array, where: "int | slice | tuple[int, slice]", values: _Array) -> _Array:
    """A copy in which the part `where` is `values`."""
    copy = array.copy()
    copy[where] = values
    return copy


def _check(s: _Array, n: int, what: str) -> None:
    if s.shape != (n,):
        raise InputError(f"scales to fold into {what}: found the shape {s.shape}, expected ({n},)")
    if not (np.isfinite(s).all() and (s > 0).all()):
        i = int(np.flatnonzero(~(np.isfinite(s) & (s > 0)))[0])
        raise InputError(f"scales to fold into {what}: found {s[i]} at {i}, expected positive finite numbers")
