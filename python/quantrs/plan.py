"""The plan: for every tensor of a model what it becomes, why, and where it goes in the written file.

`Plan.for_gguf` reads headers only. The header that it plans, tensor order included, is the one that ``llama-quantize``
writes, so that the whole file comes out equal; two differences are deliberate: data is aligned as ``general.alignment``
says (that tool pads to 32 and leaves the key), and strings keep NUL bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from re import Pattern
from typing import TYPE_CHECKING

from quantrs._native import Gguf, GgufHeader, Imatrix, TensorInfo
from quantrs.arrangement import ArrangedTensor, Arrangement, arrange
from quantrs.errors import InputError, UsageError
from quantrs.mix_rules import Category, category_of
from quantrs.mixes import Choice, Mix, MixTensor, ModelFacts, Wishes, demands_imatrix
from quantrs.model_facts import read_model_facts
from quantrs.options import KvOverride, QuantizeOptions, parse_kv_override
from quantrs.schemes import FileType, file_type, is_quantized, row_bytes, tensor_type, tensor_types, writable
from quantrs.written_header import imatrix_keys, main_header, set_split_keys, split_paths

if TYPE_CHECKING:
    from quantrs.recipe import Recipe

__all__ = ["Plan", "PlannedFile", "TensorPlan", "is_packed"]

_Member = tuple[ArrangedTensor, Choice, str | None, int]
"""Tensor, what it becomes, importance entry, offset in the data section."""


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
    made: bool = False
    """A method computes it, from `source` and what the method knows; otherwise rows are converted as they are."""
    n_weights: int = -1
    """Weights of the model that it holds; -1 for all its values. Scales and the like hold none."""

    def __post_init__(self) -> None:
        if self.n_weights < 0:
            object.__setattr__(self, "n_weights", self.n_rows * self.n_cols)

    @property
    def source_bytes(self) -> int:
        """Bytes of the source that go into it; what several tensors are made from is counted once."""
        return self.source.nbytes if self.n_weights else 0

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
        return self.source_type == self.target_type and not self.made


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
    """What the user should know, but what does not stop the work. The source's own notices are not repeated."""
    refusals: tuple[str, ...]
    """Why `quantize` would refuse this plan; empty when it would not."""
    options: QuantizeOptions
    imatrix: Imatrix | None
    """Opened; None when none was given or every entry was filtered away."""
    made_from: str | None = None
    """Hash of what tensors are made from besides the source, where some are: calibration data, and how each layer is stored."""

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


class _Planner:
    """Holds what the steps of `plan` share: the parsed options, and notices and refusals as they come up."""

    def __init__(self, gguf: Gguf, options: QuantizeOptions) -> None:
        self.gguf = gguf
        self.options = options
        self.file_type: FileType = file_type(options.to)
        self.overrides: list[KvOverride] = [parse_kv_override(text) for text in options.override_kv]
        self.facts: ModelFacts = read_model_facts(gguf, self.overrides)
        self.recipe = _read_recipe(options)
        self.notices: list[str] = []
        self.refusals: list[str] = []
        self.patterns = _Patterns(options.tensor_types)
        self.wishes = self._wishes()
        self.imatrix, self.imatrix_names = self._open_imatrix()
        self.arrangement: Arrangement = arrange(
            gguf, prune_layers=options.prune_layers, keep_split=options.keep_split, keep_shapes=options.keep_shapes
        )

    def plan(self, destination: str | None) -> Plan:
        choices = self._choose()
        entries = self._imatrix_entries(choices)
        self._refuse(choices, entries)
        self._notice(choices)
        files = self._files(choices, entries, destination or f"ggml-model-{self.file_type.name}.gguf")
        return Plan(
            tensors=tuple(tensor for file in files for tensor in file.tensors),
            files=tuple(files),
            file_bytes=sum(file.file_bytes for file in files),
            source_bytes=self.gguf.file_size,
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
            raise UsageError("--to COPY changes no tensor, so --recipe can say nothing; name the file type that the recipe starts from")

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

    # What each becomes

    def _choose(self) -> list[Choice]:
        mix = Mix(
            self.file_type,
            self.facts,
            [tensor.name for tensor in self.arrangement.tensors],
            has_imatrix=self.imatrix is not None,
            wishes=self.wishes,
        )
        choices = [mix.choose(MixTensor(tensor.name, tensor.dims, tensor.type_name)) for tensor in self.arrangement.tensors]
        if self.recipe is not None:
            self.recipe.check_all_matched()
        if self.options.packed_to is not None:
            decoded = Choice(self.options.packed_to, "decoded: no block type holds its values")
            choices = [
                decoded if tensor.type_name == "F32" and is_packed(tensor.source) else choice
                for tensor, choice in zip(self.arrangement.tensors, choices, strict=True)
            ]
        return [
            Choice(choice.type_name, f"copied: already {choice.type_name}")
            if choice.type_name == tensor.type_name and not choice.excluded
            else choice
            for tensor, choice in zip(self.arrangement.tensors, choices, strict=True)
        ]

    def _imatrix_entries(self, choices: Sequence[Choice]) -> list[str | None]:
        if self.imatrix is None:
            return [None] * len(choices)
        names, absent = set(self.imatrix_names), []
        entries: list[str | None] = []
        for tensor, choice in zip(self.arrangement.tensors, choices, strict=True):
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

    def _refuse(self, choices: Sequence[Choice], entries: Sequence[str | None]) -> None:
        unwritten, requantized, undecodable, demanding = [], [], [], []
        for tensor, choice, entry in zip(self.arrangement.tensors, choices, entries, strict=True):
            if choice.type_name == tensor.type_name:
                continue
            if not writable(choice.type_name):
                unwritten.append(tensor.name)
            if is_quantized(tensor.type_name):
                requantized.append((tensor.name, tensor.type_name))
            elif is_quantized(choice.type_name) and _has_few_levels(tensor.source):
                requantized.append((tensor.name, "codes and scales"))
            if tensor.type_name != "F32" and not tensor_types()[tensor.type_name].can_dequantize:
                undecodable.append((tensor.name, tensor.type_name))
            if entry is None and not choice.excluded and demands_imatrix(tensor.name, choice.type_name, self.file_type.name):
                demanding.append((tensor.name, choice.type_name))
        if unwritten:
            self.refusals.append(
                f"the types IQ1, IQ2 and IQ3 are not yet written by quantrs; {self.file_type.name} needs them for {_first_of(unwritten)}"
            )
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

    def _notice(self, choices: Sequence[Choice]) -> None:
        tensors = self.arrangement.tensors
        fallen = [tensor.name for tensor, choice in zip(tensors, choices, strict=True) if choice.why.startswith("fallback")]
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
            # llama.cpp wants as many values as layers in such arrays.
            layers = self.facts.block_count
            arrays = [key for key in self.gguf.keys() if key.startswith(self.facts.architecture) and self.gguf.array_len(key) == layers]
            if arrays:
                self.notices.append(f"--prune-layers leaves the values per layer as they are in {_first_of(arrays)}")

    # How the files look

    def _files(self, choices: Sequence[Choice], entries: Sequence[str | None], destination: str) -> list[PlannedFile]:
        keep_split, tensors = self.options.keep_split, self.arrangement.tensors
        n_files = 1 + max((tensor.split for tensor in tensors), default=0) if keep_split else 1
        headers = [self._main_header()] + [GgufHeader.new(3) for _ in range(n_files - 1)]
        if n_files > 1:
            set_split_keys(headers, len(tensors))
        members: list[list[_Member]] = [[] for _ in range(n_files)]
        # The reference converter keeps trailing sizes of 1, which llama-quantize drops.
        keeps_ones = self.gguf.is_assembled and not self.file_type.is_quantized
        for tensor, choice, entry in zip(tensors, choices, entries, strict=True):
            index = tensor.split if keep_split else 0
            dims = tensor.source.dims if keeps_ones else tensor.dims
            offset = headers[index].add_tensor(tensor.name, dims, choice.type_name)
            members[index].append((tensor, choice, entry, offset))
        empty = [index for index in range(1, n_files) if not members[index]]
        if empty:
            raise InputError(f"--keep-split: no tensor of {self.gguf.files[empty[0]]} is left; write one file, without --keep-split")
        paths = split_paths(destination, n_files) if keep_split else [destination]
        return [_planned_file(*parts) for parts in zip(paths, headers, members, strict=True)]

    def _main_header(self) -> GgufHeader:
        overrides = list(self.overrides)
        if self.imatrix is not None and self.options.imatrix is not None:
            overrides += imatrix_keys(self.options.imatrix_label or self.options.imatrix, self.imatrix, len(self.imatrix_names))
        return main_header(
            self.gguf,
            self.file_type,
            overrides,
            architecture=self.facts.architecture,
            n_layers=self.arrangement.n_layers,
        )


def is_packed(tensor: TensorInfo) -> bool:
    """Whether it is a linear of a quantized checkpoint."""
    return any(part.is_packed for part in tensor.parts)


def _has_few_levels(tensor: TensorInfo) -> bool:
    """Packed, and not in 8-bit floats, which serve as a source like any others."""
    return any(part.is_packed and part.stored != "f8_e4m3" for part in tensor.parts)


class _Patterns:
    """``--tensor-type`` in order; remembers which were of use."""

    def __init__(self, tensor_types_wanted: Sequence[tuple[str, str]]) -> None:
        self._used: set[str] = set()
        self._rows: list[tuple[str, Pattern[bytes], str]] = []
        if not tensor_types_wanted:
            return
        from quantrs.patterns import compile_ecmascript  # start-up time: few runs need it

        self._rows = [
            (pattern, compile_ecmascript(pattern, where="--tensor-type"), tensor_type(type_name, where=f"--tensor-type {pattern}"))
            for pattern, type_name in tensor_types_wanted
        ]

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


def _read_recipe(options: QuantizeOptions) -> "Recipe | None":
    if options.recipe is None:
        return None
    from quantrs.recipe import Recipe  # start-up time: few runs need it

    return Recipe.read(options.recipe)


def _planned_file(path: str, header: GgufHeader, members: Sequence[_Member]) -> PlannedFile:
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


def _first_of(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
