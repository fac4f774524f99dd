"""A checkpoint folder: its configuration, and where in which file each tensor lies. No tensor is read."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from quantrs import _native
from quantrs.errors import FileError, FormatError, InputError
from quantrs.huggingface.config import Config
from quantrs.pickles import INSTEAD_OF_PICKLE, PICKLES
from quantrs.tokenization.bounded_json import read_object

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Folder", "HfTensor", "Memory", "PackedRows", "read_bytes_of"]

Memory = tuple[str, "NDArray[np.uint8]"]
"""A source that is no file: what to call it, and its bytes."""

_MAX_INDEX_BYTES = 64 << 20  # an index names every tensor
_INDEX = ".safetensors.index.json"


def read_bytes_of(source: "str | Memory", offset: int, nbytes: int) -> bytes:
    """Bytes of a small tensor.

    Raises
    ------
    FileError
        The file cannot be read, or has become shorter.
    """
    if not isinstance(source, str):
        return source[1][offset : offset + nbytes].tobytes()
    try:
        with Path(source).open("rb") as file:
            file.seek(offset)
            raw = file.read(nbytes)
    except OSError as error:
        raise FileError(f"{source}: {error.strerror or error}") from error
    if len(raw) != nbytes:
        raise FileError(f"{source}: ends {nbytes - len(raw)} bytes too early; it was changed while it was read")
    return raw


@dataclass(frozen=True)
class PackedRows:
    """Rows that lie as codes, with scales elsewhere; see `quantrs.huggingface.quantized`."""

    types: tuple[str, ...]
    """Block types of GGUF that hold the very same values, the smallest first."""

    @abstractmethod
    def part(self, order: str, n_heads: int) -> "_native.Part":
        """All rows, in this order."""


@dataclass(frozen=True)
class HfTensor:
    """One tensor of a folder."""

    name: str
    dtype: str
    """As safetensors spells it: ``F32 F16 BF16 F8_E4M3 I64 ...``."""
    shape: tuple[int, ...]
    """Outermost axis first."""
    source: int
    """Index into `Folder.sources`."""
    offset: int
    """Of the first byte, from the start of the source."""
    nbytes: int
    packed: PackedRows | None = None
    """How the values lie, where they are codes: then source and offset are those of the codes, and `dtype`, F32, holds every value."""

    def part(self, n_rows: int, order: str = "as_stored", n_heads: int = 0) -> "_native.Part":
        """All rows, for an assembled tensor."""
        if self.packed is not None:
            return self.packed.part(order, n_heads)
        return _native.Part(self.source, self.offset, self.dtype, n_rows, order, n_heads)


@dataclass(frozen=True)
class Folder:
    """An open checkpoint folder."""

    path: Path
    tensors: dict[str, HfTensor]
    """In the order of files and of headers."""
    sources: Sequence[str | Memory]
    """Paths of the safetensors files."""
    settings: Config | None = field(default=None)
    """``config.json``, if there is one."""
    generation: dict[str, object] = field(default_factory=dict)
    """``generation_config.json``, or empty."""

    @staticmethod
    def open(path: "str | Path") -> "Folder":
        """Read configuration, index and headers.

        Raises
        ------
        FileError
            The folder or a shard is missing or cannot be read.
        FormatError
            A header, an index or a configuration is damaged, or they contradict each other.
        InputError
            The folder holds no safetensors file.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise FileError(f"{folder}: not a folder; expected one with config.json and *.safetensors")
        files, index = _find_files(folder)
        tensors = _read_headers(files)
        if index is not None:
            _check_index(index, tensors, files)
        config_path, generation_path = folder / "config.json", folder / "generation_config.json"
        return Folder(
            folder,
            tensors,
            [str(file) for file in files],
            Config.read(config_path) if config_path.is_file() else None,
            read_object(generation_path, _MAX_INDEX_BYTES) if generation_path.is_file() else {},
        )

    @property
    def config(self) -> Config:
        """The model's configuration.

        Raises
        ------
        InputError
            There is none.
        """
        if self.settings is None:
            raise InputError(f"{self.path}: no config.json; get the model's, or keep the tensors as they are with --arch generic")
        return self.settings

    @property
    def name(self) -> str:
        """The folder's own name, also when it was given as ``.``."""
        return self.path.resolve().name


@dataclass(frozen=True)
class _Index:
    path: Path
    shards: dict[str, str]
    """Tensor name to file name."""


def _find_files(folder: Path) -> tuple[list[Path], _Index | None]:
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise FileError(f"{folder}: {error.strerror or error}") from error
    indexes = [name for name in names if name.endswith(_INDEX)]
    index_name = next((name for name in indexes if name == f"model{_INDEX}"), indexes[0] if len(indexes) == 1 else None)
    if index_name is not None:
        index = _read_index(folder / index_name)
        shards = sorted(set(index.shards.values()))
        missing = [shard for shard in shards if shard not in set(names)]
        if missing:
            raise FileError(
                f"{folder / index_name}: the shard {missing[0]!r} is not in the folder ({len(missing)} of {len(shards)} missing); "
                "download it"
            )
        return [folder / shard for shard in shards], index
    stems = [name for name in names if name.endswith(".safetensors")]
    models = [name for name in stems if name.startswith("model")] or [name for name in stems if not name.startswith("adapter_")]
    if not models:
        raise _no_weights(folder, names, stems)
    return [folder / name for name in models], None


def _no_weights(folder: Path, names: Iterable[str], stems: Sequence[str]) -> InputError:
    pickles = [name for name in names if name.endswith(PICKLES)]
    if stems:
        return InputError(f"{folder}: {stems[0]} is an adapter, not a model; give the base model's folder and --lora {folder}")
    if pickles:
        return InputError(
            f"{folder}: {pickles[0]} is a pickle, which runs code when it is opened, so it is never read; {INSTEAD_OF_PICKLE}"
        )
    return InputError(f"{folder}: no *.safetensors; expected a checkpoint folder as save_pretrained writes it")


def _read_index(path: Path) -> _Index:
    weight_map = read_object(path, _MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise FormatError(f"{path}: 'weight_map' is {type(weight_map).__name__}, expected an object of tensor names and file names")
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or not shard.endswith(".safetensors") or Path(shard).name != shard or "\\" in shard:
            raise FormatError(
                f"{path}: tensor {name!r} is said to be in {shard!r}; expected the plain name of a *.safetensors file in the same folder"
            )
    return _Index(path, weight_map)


def _read_headers(files: Sequence[Path]) -> dict[str, HfTensor]:
    tensors: dict[str, HfTensor] = {}
    for source, file in enumerate(files):
        for name, dtype, shape, offset, nbytes in _native.SafeTensors.open(file).tensors:
            if name in tensors:
                raise FormatError(f"{file}: tensor {name!r} is also in {files[tensors[name].source]}; expected it once")
            tensors[name] = HfTensor(name, dtype, shape, source, offset, nbytes)
    return tensors


def _check_index(index: _Index, tensors: dict[str, HfTensor], files: Sequence[Path]) -> None:
    for name, shard in index.shards.items():
        found = tensors.get(name)
        if found is None or files[found.source].name != shard:
            raise FormatError(
                f"{index.path}: tensor {name!r} is said to be in {shard}, which does not hold it; "
                "the files are of different models or incomplete"
            )
