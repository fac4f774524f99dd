"""The plan: for every tensor of a model what it becomes, why, and where it goes in the written file.

`Plan.for_gguf` reads headers only. The header that it plans, tensor order included, is the one that ``llama-quantize``
writes, so that the whole file comes out equal; two differences are deliberate: data is aligned as ``general.alignment``
says (that tool pads to 32 and leaves the key), and strings keep NUL bytes.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from quantrs._native import Gguf, GgufHeader, Imatrix, TensorInfo
from quantrs.errors import InputError
from quantrs.mix_rules import Category, category_of
from quantrs.mixes import Choice, Mix, MixTensor, ModelFacts, Wishes, demands_imatrix, layer_of
from quantrs.model_facts import read_model_facts
from quantrs.options import KvOverride, QuantizeOptions, parse_kv_override
from quantrs.patterns import compile_ecmascript
from quantrs.recipe import Recipe
from quantrs.schemes import FILE_TYPES, FileType, file_type, is_quantized, row_bytes, tensor_type, tensor_types, writable

__all__ = ["Plan", "PlannedFile", "TensorPlan"]

_SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count")
_MAX_STRING_BYTES = 127  # of the strings that the tool hands to itself as overrides
_GUESSED = 1024  # flag in general.file_type: no such key was there to copy


@dataclass(frozen=True, kw_only=True)
class TensorPlan:
    """One tensor of the written file."""

    name: str
    """Name in the written file (a pruned model's layers are numbered anew)."""
    dims: tuple[int, ...]
    """As stored in the file: row length first, no trailing dimensions of 1."""
    source_type: str
    target_type: str
    why: str
    """What decided the target type, for the reader of the plan."""
    nbytes: int
    """Bytes of data in the written file, without padding."""
    offset: int
    """From the start of the written file."""
    imatrix_name: str | None
    """Importance matrix entry to use; None when this tensor is converted without one."""
    source: TensorInfo

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows first, as NumPy counts dimensions: ``[..., out_features, in_features]``."""
        return tuple(reversed(self.dims))

    @property
    def n_cols(self) -> int:
        """Row length."""
        return self.dims[0]

    @property
    def n_rows(self) -> int:
        """Rows of all matrices together."""
        return prod(self.dims[1:])

    @property
    def copied(self) -> bool:
        """The bytes go over as they are."""
        return self.source_type == self.target_type


@dataclass(frozen=True, kw_only=True)
class PlannedFile:
    """One file that will be written; several with ``keep_split``."""

    path: str
    header: bytes
    """Everything before the tensor data, padding included."""
    tensors: tuple[TensorPlan, ...]
    """In file order."""
    file_bytes: int
    """Size of the finished file: its header, then every tensor, each padded to the alignment with zeros."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What `quantize` is about to do; `check` says whether it may."""

    tensors: tuple[TensorPlan, ...]
    """Of all files, in the order in which they are written."""
    files: tuple[PlannedFile, ...]
    file_bytes: int
    """Of all written files."""
    source_bytes: int
    """Of all source files."""
    file_type: str
    """``Q4_K_M``."""
    notices: tuple[str, ...]
    """What the user should know, but what does not stop the work; the reader's notices first."""
    refusals: tuple[str, ...]
    """Why `quantize` would refuse this plan; empty when it would not."""
    options: QuantizeOptions
    imatrix: Imatrix | None
    """Opened; None when none was given or every entry was filtered away."""

    @staticmethod
    def for_gguf(gguf: Gguf, options: QuantizeOptions, destination: str | None = None) -> "Plan":
        """Plan the file(s) that quantizing `gguf` writes to `destination` (by default ``ggml-model-TYPE.gguf``).

        Raises
        ------
        UsageError
            An option names an unknown type, or holds a malformed pattern or value.
        InputError
            A tensor has no type that fits its shape, or is of a type that this build does not know.
        FileError, FormatError
            The importance matrix or the recipe cannot be read.
        """
        return _Planner(gguf, options).plan(destination)

    def check(self) -> None:
        """Raise `InputError` with the reasons, if `quantize` would refuse this plan."""
        if self.refusals:
            raise InputError("; ".join(self.refusals))

    def to_json(self) -> dict[str, object]:
        """The plan as a JSON value; ``tensors`` are rows of ``name, shape, from, to, why, bytes``."""
        rows = [
            {"name": t.name, "shape": list(t.shape), "from": t.source_type, "to": t.target_type, "why": t.why, "bytes": t.nbytes}
            for t in self.tensors
        ]
        return {
            "file_type": self.file_type,
            "file_bytes": self.file_bytes,
            "source_bytes": self.source_bytes,
            "files": [{"path": file.path, "file_bytes": file.file_bytes, "tensors": len(file.tensors)} for file in self.files],
            "notices": list(self.notices),
            "refusals": list(self.refusals),
            "tensors": rows,
        }


@dataclass(frozen=True)
class _Arranged:
    """A tensor that will be written: under which name, and in which file with ``keep_split``."""

    name: str
    dims: tuple[int, ...]
    split: int
    type_name: str
    source: TensorInfo


class _Planner:
    """Holds what the steps of `plan` share: the parsed options, and notices and refusals as they come up."""

    def __init__(self, gguf: Gguf, options: QuantizeOptions) -> None:
        self.gguf = gguf
        self.options = options
        self.infos: list[TensorInfo] = sorted(gguf.tensors, key=_place)
        self.file_type: FileType = file_type(options.to)
        self.overrides: list[KvOverride] = [parse_kv_override(text) for text in options.override_kv]
        self.facts: ModelFacts = read_model_facts(gguf, self.overrides)
        self.recipe = None if options.recipe is None else Recipe.read(options.recipe)
        self.notices: list[str] = list(gguf.notices)
        self.refusals: list[str] = []
        self.patterns = _Patterns(options.tensor_types)
        self.wishes = self._wishes()
        self.imatrix, self.imatrix_names = self._open_imatrix()

    def plan(self, destination: str | None) -> Plan:
        arranged, kept_layers = self._arrange()
        choices = self._choose(arranged)
        entries = self._imatrix_entries(arranged, choices)
        self._refuse(arranged, choices, entries)
        self._notice(arranged, choices)
        destination = destination or f"ggml-model-{self.file_type.name}.gguf"
        files = self._files(arranged, choices, entries, kept_layers, destination)
        return Plan(
            tensors=tuple(tensor for file in files for tensor in file.tensors),
            files=tuple(files),
            file_bytes=sum(file.file_bytes for file in files),
            source_bytes=sum(Path(path).stat().st_size for path in self.gguf.files),
            file_type=self.file_type.name,
            notices=tuple(self.notices),
            refusals=tuple(self.refusals),
            options=self.options,
            imatrix=self.imatrix,
        )

    # What the options say

    def _wishes(self) -> Wishes:
        options, recipe = self.options, self.recipe
        if recipe is not None and self.file_type.default_type is None:
            raise InputError("--to COPY changes no tensor, so --recipe can say nothing; name the file type that the recipe starts from")

        def by_recipe(name: str) -> tuple[str | None, str] | None:
            rule = recipe.rule_for(name) if recipe is not None else None
            return None if rule is None else (rule.type_name, rule.why)

        def named(text: str | None, where: str) -> str | None:
            return None if text is None else tensor_type(text, where=where)

        return Wishes(
            pure=options.pure,
            leave_output_tensor=options.leave_output_tensor,
            output_tensor_type=named(options.output_tensor_type, "--output-tensor-type"),
            token_embedding_type=named(options.token_embedding_type, "--token-embedding-type"),
            by_pattern=self.patterns.find,
            by_recipe=by_recipe,
        )

    def _open_imatrix(self) -> tuple[Imatrix | None, list[str]]:
        options = self.options
        if options.imatrix is None:
            return None, []
        imatrix = Imatrix.open(options.imatrix)
        names = [name for name in imatrix.names if not any(part in name for part in options.exclude_weights)]
        if options.include_weights:
            names = [name for name in names if any(part in name for part in options.include_weights)]
        if not names:
            self.notices.append("no entry of the importance matrix is left by --include-weights or --exclude-weights; going on without")
        return (imatrix if names else None), names

    # Which tensors, in which order, under which name

    def _arrange(self) -> tuple[list[_Arranged], int | None]:
        """Tensors in the order of writing, and the number of layers left (None when none was pruned)."""
        options = self.options
        split_of = {path: index for index, path in enumerate(self.gguf.files)}
        renumbering = _Renumbering(options.prune_layers)
        arranged = []
        for info in self.infos:
            name = renumbering.new_name(info.name)
            if info.type_name is None:
                raise InputError(
                    f"{info.name} has ggml type id {info.type_id}, which this version of quantrs does not know; "
                    "quantize from a file of types that `quantrs doctor` lists, or update quantrs"
                )
            if name is not None:
                arranged.append(_Arranged(name, _without_trailing_ones(info.dims), split_of[info.file], info.type_name, info))
        absent = set(options.prune_layers) - renumbering.pruned
        if absent:
            raise InputError(f"--prune-layers: the model has no layer {min(absent)}; it has {self.facts.block_count} layers, numbered from 0")
        if options.prune_layers and not renumbering.n_layers:
            raise InputError("--prune-layers: no layer would be left")
        if options.keep_split:
            arranged.sort(key=lambda tensor: (tensor.split, tensor.source.offset))
        return arranged, renumbering.n_layers if options.prune_layers else None

    # What each becomes

    def _choose(self, arranged: Sequence[_Arranged]) -> list[Choice]:
        mix = Mix(
            self.file_type,
            self.facts,
            [tensor.name for tensor in arranged],
            has_imatrix=self.imatrix is not None,
            wishes=self.wishes,
        )
        choices = [mix.choose(MixTensor(tensor.name, tensor.dims, tensor.type_name)) for tensor in arranged]
        if self.recipe is not None:
            self.recipe.check_all_matched()
        return [
            choice if choice.excluded or choice.type_name != tensor.type_name else Choice(choice.type_name, f"copied: already {choice.type_name}")
            for tensor, choice in zip(arranged, choices, strict=True)
        ]

    def _imatrix_entries(self, arranged: Sequence[_Arranged], choices: Sequence[Choice]) -> list[str | None]:
        if self.imatrix is None:
            return [None] * len(arranged)
        names, entries, absent = set(self.imatrix_names), [], []
        for tensor, choice in zip(arranged, choices, strict=True):
            entry = tensor.source.name
            if choice.type_name == tensor.type_name:
                entries.append(None)
                continue
            if entry not in names:
                entries.append(None)
                if tensor_types()[choice.type_name].importance != "ignored":
                    absent.append(tensor.name)
                continue
            expected, found = tensor.dims[0] * (tensor.dims[2] if len(tensor.dims) > 2 else 1), self.imatrix.length(entry)
            if found == expected:
                entries.append(entry)
                continue
            entries.append(None)
            text = f"{tensor.name}: the importance matrix has {found} values, expected {expected} (row length times experts)"
            if category_of(tensor.name) is Category.TOKEN_EMBD:
                self.notices.append(f"{text}; this tensor is quantized without")
            else:
                self.refusals.append(f"{text}; use the matrix that was made for this model, or --exclude-weights {entry}")
        if absent:
            self.notices.append(f"the importance matrix has no entry for {_first_of(absent)}")
        return entries

    # Whether it may be done

    def _refuse(self, arranged: Sequence[_Arranged], choices: Sequence[Choice], entries: Sequence[str | None]) -> None:
        unwritten, requantized, undecodable, demanding = [], [], [], []
        for tensor, choice, entry in zip(arranged, choices, entries, strict=True):
            if choice.type_name == tensor.type_name:
                continue
            if not writable(choice.type_name):
                unwritten.append(tensor.name)
            if is_quantized(tensor.type_name):
                requantized.append((tensor.name, tensor.type_name))
            if tensor.type_name != "F32" and not tensor_types()[tensor.type_name].can_dequantize:
                undecodable.append((tensor.name, tensor.type_name))
            if entry is None and not choice.excluded and demands_imatrix(tensor.name, choice.type_name, self.file_type.name):
                demanding.append((tensor.name, choice.type_name))
        if unwritten:
            self.refusals.append(f"{self.file_type.name} is not yet written by quantrs: it needs IQ1, IQ2 or IQ3 types for {_first_of(unwritten)}")
        if requantized and not self.options.allow_requantize:
            names = [name for name, _ in requantized]
            self.refusals.append(
                f"{_first_of(names)} would be quantized a second time (found {requantized[0][1]}), which loses quality; "
                "start from the F16, BF16 or F32 model, or pass --allow-requantize"
            )
        if undecodable:
            name, type_name = undecodable[0]
            self.refusals.append(f"{name}: cannot convert from {type_name}; keep it with --recipe (keep = true)")
        if demanding:
            name, type_name = demanding[0]
            others = f" and {len(demanding) - 1} more tensors" if len(demanding) > 1 else ""
            self.refusals.append(
                f"{name} becomes {type_name}{others} in a {self.file_type.name} file, which is garbage without importance weights; "
                "pass --imatrix FILE with an entry for it"
            )

    def _notice(self, arranged: Sequence[_Arranged], choices: Sequence[Choice]) -> None:
        fallen = [tensor.name for tensor, choice in zip(arranged, choices, strict=True) if choice.why.startswith("fallback")]
        if fallen:
            self.notices.append(f"a fallback type is used for {_first_of(fallen)}: the row is not a multiple of the block")
        if not self.facts.architecture:
            self.notices.append("general.architecture is missing: types are chosen by tensor names and shapes alone")
        if self.options.tensor_types and not self.file_type.is_quantized:
            self.notices.append(f"--tensor-type has no effect with --to {self.file_type.name}")
        else:
            for pattern in self.patterns.unmatched():
                self.notices.append(f"--tensor-type {pattern!r} decides on no tensor")
        if self.options.prune_layers:
            layers = self.facts.block_count
            arrays = [key for key in self.gguf.keys() if key.startswith(self.facts.architecture) and self.gguf.array_len(key) == layers]
            if arrays:
                self.notices.append(f"--prune-layers leaves the values per layer as they are in {_first_of(arrays)}")

    # How the files look

    def _files(
        self, arranged: Sequence[_Arranged], choices: Sequence[Choice], entries: Sequence[str | None], n_layers: int | None, destination: str
    ) -> list[PlannedFile]:
        n_files = 1 + max((tensor.split for tensor in arranged), default=0) if self.options.keep_split else 1
        headers = [self._main_header(n_layers)] + [GgufHeader.new(3) for _ in range(n_files - 1)]
        if n_files > 1:
            for number, header in enumerate(headers):
                header.set("split.no", number, "u16")
                header.set("split.count", n_files, "u16")
                header.set("split.tensors.count", len(arranged), "i32")
        members: list[list[tuple[_Arranged, Choice, str | None, int]]] = [[] for _ in range(n_files)]
        for tensor, choice, entry in zip(arranged, choices, entries, strict=True):
            index = tensor.split if self.options.keep_split else 0
            offset = headers[index].add_tensor(tensor.name, tensor.dims, choice.type_name)
            members[index].append((tensor, choice, entry, offset))
        empty = [index for index in range(1, n_files) if not members[index]]
        if empty:
            raise InputError(f"--keep-split: no tensor of {self.gguf.files[empty[0]]} is left; write one file, without --keep-split")
        paths = _split_paths(destination, n_files) if self.options.keep_split else [destination]
        return [_planned_file(*parts) for parts in zip(paths, headers, members, strict=True)]

    def _main_header(self, n_layers: int | None) -> GgufHeader:
        """All metadata; the order of the steps fixes the order of the keys, because setting a key moves it to the end."""
        header = _as_version_3(self.gguf)
        header.set("general.quantization_version", 2, "u32")
        header.set("general.file_type", self._file_type_id(), "u32")
        for key in _SPLIT_KEYS:
            header.remove(key)
        for override in [*self.overrides, *self._imatrix_keys()]:
            header.set(override.key, override.value, override.value_type)
        if n_layers is not None:
            header.set(f"{self.facts.architecture}.block_count", n_layers, "u32")
        return header

    def _imatrix_keys(self) -> list[KvOverride]:
        if self.imatrix is None or self.options.imatrix is None:
            return []
        keys = [KvOverride("quantize.imatrix.file", _cut(self.options.imatrix), "string")]
        if self.imatrix.datasets:
            keys.append(KvOverride("quantize.imatrix.dataset", _cut(self.imatrix.datasets[0]), "string"))
        keys.append(KvOverride("quantize.imatrix.entries_count", len(self.imatrix_names), "u32"))
        if self.imatrix.chunk_count > 0:
            keys.append(KvOverride("quantize.imatrix.chunks_count", self.imatrix.chunk_count, "u32"))
        return keys

    def _file_type_id(self) -> int:
        if self.file_type.id is not None:
            return self.file_type.id
        kept = self.gguf.get("general.file_type")
        return kept if isinstance(kept, int) else _guessed_file_type(info.type_name or "" for info in self.infos) | _GUESSED


class _Patterns:
    """``--tensor-type`` in order; remembers which were of use."""

    def __init__(self, tensor_types_wanted: Sequence[tuple[str, str]]) -> None:
        self._rows = [
            (pattern, compile_ecmascript(pattern, where="--tensor-type"), tensor_type(type_name, where=f"--tensor-type {pattern}"))
            for pattern, type_name in tensor_types_wanted
        ]
        self._used: set[str] = set()

    def find(self, name: str) -> tuple[str, str] | None:
        if not self._rows:
            return None
        name_bytes = name.encode("utf-8", "surrogateescape")
        for pattern, compiled, type_name in self._rows:
            if compiled.search(name_bytes):
                self._used.add(pattern)
                return type_name, f"--tensor-type '{pattern}'"
        return None

    def unmatched(self) -> list[str]:
        return [pattern for pattern, _, _ in self._rows if pattern not in self._used]


class _Renumbering:
    """``--prune-layers``: which tensors go, and the new layer numbers of the rest; asked in the order of writing."""

    _LAYER = re.compile(r"blk\.([0-9]+)\.")

    def __init__(self, prune: Sequence[int]) -> None:
        self._prune = sorted(prune)
        self._new: dict[int, int | None] = {}
        self.n_layers = 0
        self.pruned: set[int] = set()

    def new_name(self, name: str) -> str | None:
        match = self._LAYER.search(name) if self._prune else None
        if match is None:
            return name
        layer = int(match[1])
        if layer not in self._new:
            if layer in self._prune:
                self._new[layer] = None
                self.pruned.add(layer)
            else:
                self._new[layer] = layer if layer < self._prune[0] else self.n_layers
                self.n_layers = layer + 1 if layer < self._prune[0] else self.n_layers + 1
        new = self._new[layer]
        return None if new is None else f"{name[: match.start(1)]}{new}{name[match.end(1) :]}"


def _planned_file(path: str, header: GgufHeader, members: Sequence[tuple[_Arranged, Choice, str | None, int]]) -> PlannedFile:
    header_bytes = header.to_bytes()
    tensors = tuple(
        TensorPlan(
            name=tensor.name,
            dims=tensor.dims,
            source_type=tensor.type_name,
            target_type=choice.type_name,
            why=choice.why,
            nbytes=row_bytes(choice.type_name, tensor.dims[0]) * prod(tensor.dims[1:]),
            offset=len(header_bytes) + offset,
            imatrix_name=entry,
            source=tensor.source,
        )
        for tensor, choice, entry, offset in members
    )
    return PlannedFile(path=path, header=header_bytes, tensors=tensors, file_bytes=len(header_bytes) + header.data_len)


def _place(info: TensorInfo) -> tuple[int, str]:
    """Tensors outside the layers first, then layer by layer; by name within (code points sort as their UTF-8 bytes do)."""
    layer = layer_of(info.name)
    return -1 if layer is None else layer, info.name


def _as_version_3(gguf: Gguf) -> GgufHeader:
    if gguf.version == 3:
        return gguf.header()
    header = GgufHeader.new(3)
    for key in gguf.keys():
        value, value_type = gguf.get(key), gguf.value_type(key)
        if value is not None and value_type is not None:
            header.set(key, value, value_type)
    return header


def _split_paths(destination: str, n_files: int) -> list[str]:
    prefix = destination.removesuffix(".gguf")
    return [f"{prefix}-{number:05d}-of-{n_files:05d}.gguf" for number in range(1, n_files + 1)]


def _guessed_file_type(type_names: Iterable[str]) -> int:
    """The file type that most tensors speak for; the first to reach the largest count wins."""
    seen: Counter[str] = Counter()
    most, best = 0, "F32"
    for name in type_names:
        seen[name] += 1
        if seen[name] > most:
            most, best = seen[name], name
    by_type = {row.name: row.id for row in FILE_TYPES if row.id is not None} | {"Q3_K": 12, "Q4_K": 15, "Q5_K": 17, "NVFP4": 39}
    return by_type.get(best, 0)


def _without_trailing_ones(dims: tuple[int, ...]) -> tuple[int, ...]:
    n_dims = len(dims)
    while n_dims > 1 and dims[n_dims - 1] == 1:
        n_dims -= 1
    return dims[:n_dims]


def _cut(text: str) -> str:
    return text.encode("utf-8", "surrogateescape")[:_MAX_STRING_BYTES].decode("utf-8", "surrogateescape")


def _first_of(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
