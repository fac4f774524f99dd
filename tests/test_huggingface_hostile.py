"""Configurations with anything in them: an error of ours or a model, never another exception, and quickly."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import quantrs as qr
from huggingface_folders import NAMES, assembled, golden_folder
from quantrs.families import graph_of

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(-2, 300),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "yarn", "llama3", "longrope", "linear", "silu", "gpt2", "full_attention", "x" * 1000]),
)
SCALING_KEYS = [
    "factor", "full_attention", "high_freq_factor", "long_factor", "low_freq_factor", "original_max_position_embeddings", "rope_theta",
    "rope_type", "short_factor", "sliding_attention", "type",
]  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=8), st.dictionaries(st.sampled_from(SCALING_KEYS), inner, max_size=5)),
    max_leaves=12,
)
OTHER_KEYS = [
    "head_dim", "layer_types", "max_window_layers", "no_rope_layers", "norm_topk_prob", "partial_rotary_factor", "quantization_config",
    "query_pre_attn_scalar", "rope_parameters", "rope_scaling", "sliding_window", "sliding_window_pattern", "text_config",
    "use_sliding_window", "_name_or_path",
]  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict]]:
    root = tmp_path_factory.mktemp("folders")
    paths = {name: golden_folder(name, root) for name in NAMES}
    return {name: (path, json.loads((path / "config.json").read_text())) for name, path in paths.items()}


@settings(max_examples=200, deadline=5000, derandomize=True)
@given(name=st.sampled_from(NAMES), data=st.data())
def test_any_value_of_a_configuration_gives_a_model_or_an_error_of_ours(folders: dict, name: str, data: st.DataObject) -> None:
    path, config = folders[name]
    keys = st.sampled_from(sorted({*config, *OTHER_KEYS}))
    changes = data.draw(st.dictionaries(keys, VALUES, min_size=1, max_size=3))
    (path / "config.json").write_text(json.dumps(config | changes))
    with contextlib.suppress(qr.QuantrsError):
        graph_of(assembled(path))
    (path / "config.json").write_text(json.dumps(config))
