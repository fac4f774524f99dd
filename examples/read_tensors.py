"""Look into a GGUF model without loading it: metadata, and the values of single tensors.

python examples/read_tensors.py MODEL.gguf [TENSOR ...]
"""

import sys

import quantrs as qr


def main(path: str, *names: str) -> None:
    """Print what the model is, then statistics of the named tensors, or of the first three."""
    with qr.open(path) as model:
        print(f"{model.metadata['general.architecture']}, {len(model.tensors)} tensors")
        for name in names or list(model.tensors)[:3]:
            tensor = model.tensors[name]
            values = tensor.dequantize()  # read from disk here, and not before
            print(f"{name}: {tensor.type} {tensor.shape}, mean {values.mean():.5f}, deviation {values.std():.5f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
