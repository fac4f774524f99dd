"""``tokenizer.model``: the pieces of a SentencePiece model, read from and written to its protobuf message.

Format
    A message is a run of fields: a varint ``number << 3 | wire type``, then a varint (wire type 0), 8 bytes (1), a varint length and
    that many bytes (2), or 4 bytes (5). Of ``ModelProto`` only what GGUF can hold is read: the pieces (field 1: text 1, score 2,
    type 3), of the trainer's settings (field 2) the kind of model, and of the normaliser's (field 3) whether a space goes first.
Source
    https://github.com/google/sentencepiece/blob/v0.2.0/src/sentencepiece_model.proto
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from quantrs.errors import FormatError
from quantrs.tokenization.bounded_json import read_bytes
from quantrs.tokenization.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED

__all__ = ["Piece", "SentencePieceModel", "looks_like_sentencepiece"]

MAX_BYTES = 64 << 20
MAX_PIECES = 4_000_000

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_KINDS = (NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE)  # the numbers of the message are those of GGUF: 1 to 6
_BPE = 2


@dataclass(frozen=True)
class Piece:
    """A token."""

    text: str
    score: float
    """Finite; float32."""
    kind: int
    """As ``tokenizer.ggml.token_type``."""


@dataclass(frozen=True)
class SentencePieceModel:
    """What a GGUF file can hold of a ``tokenizer.model``."""

    pieces: tuple[Piece, ...]
    """By id."""
    adds_space: bool = True
    """A space goes before each text (``add_dummy_prefix``)."""

    @staticmethod
    def read(path: Path) -> "SentencePieceModel":
        """Parse a file.

        Raises
        ------
        FileError
            It cannot be read.
        FormatError
            It is no such message, or a piece is not usable; the message names offset or piece.
        """
        return SentencePieceModel.parse(read_bytes(path, MAX_BYTES), str(path))

    @staticmethod
    def parse(data: bytes, where: str = "tokenizer.model") -> "SentencePieceModel":
        """As `read`, of bytes in memory."""
        pieces: list[Piece] = []
        adds_space = True
        for number, kind, value, start in _fields(data, 0, len(data), where):
            if number == 1:
                begin, end = _range(kind, value, start, "pieces", where)
                if len(pieces) >= MAX_PIECES:
                    raise FormatError(f"{where}: found more than {MAX_PIECES} pieces, expected fewer")
                pieces.append(_piece(data, begin, end, f"{where}: piece {len(pieces)}"))
            elif number == 3:
                begin, end = _range(kind, value, start, "normalizer_spec", where)
                for inner, inner_kind, flag, _ in _fields(data, begin, end, where):
                    if inner == 3 and inner_kind == _VARINT:
                        adds_space = flag != 0
        if not pieces:
            raise FormatError(f"{where}: found no pieces, expected a SentencePiece model")
        return SentencePieceModel(tuple(pieces), adds_space)

    def to_bytes(self, *, unknown_id: int = 0, bos_id: int = -1, eos_id: int = -1, pad_id: int = -1) -> bytes:
        """The message of a model of the BPE kind with these pieces and no normalisation but the space; -1 stands for no such token."""
        out = bytearray()
        for piece in self.pieces:
            out += _field(1, _field(1, piece.text.encode()) + _float(2, piece.score) + _number(3, piece.kind))
        byte_fallback = any(piece.kind == BYTE for piece in self.pieces)
        settings = _number(3, _BPE) + _number(4, len(self.pieces)) + _number(35, byte_fallback)
        for number, token_id in ((40, unknown_id), (41, bos_id), (42, eos_id), (43, pad_id)):
            settings += _number(number, token_id & 0xFFFF_FFFF_FFFF_FFFF)
        out += _field(2, settings)
        return bytes(out + _field(3, _field(1, b"identity") + _number(3, self.adds_space) + _number(4, 0) + _number(5, 1)))


def looks_like_sentencepiece(path: Path) -> bool:
    """The file begins as the message does, with a piece; other tools keep ranks in base64 under the same name."""
    with path.open("rb") as file:
        return file.read(1) == bytes([1 << 3 | _BYTES])


def _piece(data: bytes, begin: int, end: int, where: str) -> Piece:
    text: str | None = None
    score, kind = 0.0, NORMAL
    for number, wire, value, start in _fields(data, begin, end, where):
        if number == 1:
            first, last = _range(wire, value, start, "piece", where)
            try:
                text = data[first:last].decode()
            except UnicodeDecodeError:
                raise FormatError(f"{where}: found {data[first:last]!r}, expected UTF-8") from None
        elif number == 2:
            if wire != _FOUR:
                raise FormatError(f"{where}: score has wire type {wire}, expected {_FOUR} (float)")
            (score,) = struct.unpack("<f", value.to_bytes(4, "little"))
        elif number == 3:
            if wire != _VARINT or value not in _KINDS:
                raise FormatError(f"{where}: type is {value}, expected one of {_KINDS}")
            kind = value
    if text is None:
        raise FormatError(f"{where}: found no text, expected one")
    if not math.isfinite(score):
        raise FormatError(f"{where} ({text!r}): score is {score}, expected a finite number")
    return Piece(text, score, kind)


def _fields(data: bytes, at: int, end: int, where: str) -> Iterator[tuple[int, int, int, int]]:
    """Field number, wire type, value (of field type `_BYTES`: where it ends), and where the content starts."""
    while at < end:
        tag, at = _varint(data, at, end, where)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise FormatError(f"{where}: found field number 0 at offset {at}, expected a SentencePiece model")
        start = at
        if wire == _VARINT:
            value, at = _varint(data, at, end, where)
        elif wire in (_EIGHT, _FOUR):
            width = 8 if wire == _EIGHT else 4
            if end - at < width:
                raise _cut(where, at)
            value = int.from_bytes(data[at : at + width], "little")
            at += width
        elif wire == _BYTES:
            length, start = _varint(data, at, end, where)
            if length > end - start:
                raise FormatError(
                    f"{where}: field {number} at offset {start} has {length} bytes, expected at most the {end - start} that are left"
                )
            value = at = start + length
        else:
            raise FormatError(f"{where}: found wire type {wire} at offset {at}, expected a SentencePiece model")
        yield number, wire, value, start


def _varint(data: bytes, at: int, end: int, where: str) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise _cut(where, at)
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
    raise FormatError(f"{where}: found a number of more than 10 bytes at offset {at - 10}, expected a SentencePiece model")


def _range(wire: int, end: int, start: int, field: str, where: str) -> tuple[int, int]:
    if wire != _BYTES:
        raise FormatError(f"{where}: {field} at offset {start} has wire type {wire}, expected {_BYTES}")
    return start, end


def _cut(where: str, at: int) -> FormatError:
    return FormatError(f"{where}: ends at offset {at} within a field; expected a whole SentencePiece model")


def _field(number: int, content: bytes) -> bytes:
    return _encoded(number << 3 | _BYTES) + _encoded(len(content)) + content


def _number(number: int, value: int) -> bytes:
    return _encoded(number << 3 | _VARINT) + _encoded(value)


def _float(number: int, value: float) -> bytes:
    return _encoded(number << 3 | _FOUR) + struct.pack("<f", value)


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
