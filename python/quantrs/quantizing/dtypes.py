"""Types of floats as safetensors spells them."""

import ml_dtypes
import numpy as np

__all__ = ["DTYPES"]

DTYPES: dict[str, np.dtype[np.generic]] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
