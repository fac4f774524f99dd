"""Text to token ids and back, as the metadata of a GGUF file describes it."""

from quantrs.tokenization.tokenizer import PieceStream, Tokenizer

__all__ = ["PieceStream", "Tokenizer"]
