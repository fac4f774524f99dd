"""Checkpoints as Hugging Face keeps them: folders of safetensors files with a ``config.json``, read and written.

`Folder` opens one, `assemble` gives it the face of a GGUF file, and `disassemble` turns a GGUF file's tensors and metadata back.
"""

from quantrs.huggingface.assemble import assemble
from quantrs.huggingface.disassemble import Disassembled, disassemble
from quantrs.huggingface.folder import Folder, HfTensor

__all__ = ["Disassembled", "Folder", "HfTensor", "assemble", "disassemble"]
