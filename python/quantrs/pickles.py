"""Pickles: files that run code when they are opened, so that quantrs never opens one."""

__all__ = ["INSTEAD_OF_PICKLE", "PICKLES"]

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
"""How their names end."""

INSTEAD_OF_PICKLE = (
    "get the model's *.safetensors, or convert it where you trust it: torch.load(..., weights_only=True), then safetensors.torch.save_file"
)
"""What to do, for the end of an error message."""
