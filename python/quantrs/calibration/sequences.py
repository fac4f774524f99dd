"""Calibration data: from a text, JSON lines or token ids to sequences of one length.

The tokens of all texts follow each other, in order; they are cut into sequences, and what is left over is dropped. Where the model
wants a begin token, it takes the place of the first token of each sequence, as ``llama-imatrix`` does it: a model behaves differently
without one. Token ids given as such are used as they are.
"""

import itertools
import json
import random
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import TYPE_CHECKING

from quantrs.errors import FileError, FormatError, InputError
from quantrs.whole_files import read_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from quantrs._native import Gguf
    from quantrs.calibration.options import CalibrationOptions
    from quantrs.tokenization import Tokenizer

    Ids = NDArray[np.int32]

__all__ = ["DEFAULT_TEXT", "read_sequences"]

DEFAULT_TEXT = "default_text.txt"
"""Name of the text that comes with the package."""

_ARRAYS = (".npy", ".npz")
_JSON_LINES = (".jsonl", ".ndjson")


def read_sequences(options: "CalibrationOptions", model: "Gguf", *, at_most: int | None = None, at_least: int = 1) -> "Ids":
    """Sequences for a model.

    Parameters
    ----------
    options : CalibrationOptions
        Which text, how many sequences of how many tokens, and the seed of their choice. The text is UTF-8, or the name ends in
        ``.jsonl``: an object a line, with ``text``, or with ``messages`` for the model's chat template; or in ``.npy`` or ``.npz``: one
        array of whole numbers, ``[n_tokens]`` to be cut into sequences, or ``[n_sequences, n]`` with rows of `length` tokens or more.
    model : Gguf
        Its tokenizer is used, opened for running.
    at_most : int, optional
        How many sequences are enough, where `options` leave it open.
    at_least : int
        How many it takes.

    Returns
    -------
    ndarray
        int32 ``[n_sequences, length]``, in the order of the text. Of more than are wanted, some are chosen: one at random from each of as
        many stretches of equal length.

    Raises
    ------
    FileError
        The file cannot be read.
    FormatError
        It is not UTF-8, not JSON, or not a NumPy file.
    InputError
        It holds too little, tokens that the model lacks, or values that are no tokens.
    """
    import numpy as np

    from quantrs.families import graph_of

    length, where = options.length, options.text or DEFAULT_TEXT
    n_vocab = graph_of(model, n_ctx=length)[0].n_vocab
    if options.text is not None and options.text.lower().endswith(_ARRAYS):
        cut = _cut(_read_array(options.text, n_vocab), length, where)
    else:
        from quantrs.tokenization import Tokenizer

        texts = _texts(options.text, lambda: _renderer(model))
        tokenizer = Tokenizer.of_gguf(model)
        begin = [tokenizer.bos_id] if tokenizer.add_bos and tokenizer.bos_id is not None else []
        ids = np.array([*begin, *(i for text in texts for i in _encode(tokenizer, text))], np.int32)
        if len(ids) == len(begin):
            raise InputError(f"{where}: has no text; give one of at least {at_least * length} tokens")
        _check_ids(ids, n_vocab, where)
        cut = _cut(ids, length, where)
        if begin:
            cut[:, 0] = begin[0]
    wanted = max(at_least, options.sequences or 1)
    if len(cut) < wanted:
        raise InputError(
            f"{where}: has {len(cut)} sequences of {length} tokens, expected {wanted}: {wanted * length} tokens; "
            "give a longer text, or ask for fewer or shorter sequences"
        )
    count = options.sequences or at_most or len(cut)
    return np.ascontiguousarray(cut[_choice(len(cut), min(count, len(cut)), options.seed)])


def _choice(n: int, count: int, seed: int) -> list[int]:
    """`count` of `n`, spread: one from each stretch. The same on every machine."""
    chooser = random.Random(seed)
    bounds = [n * i // count for i in range(count + 1)]
    return [start + int(chooser.random() * (end - start)) for start, end in itertools.pairwise(bounds)]


def _cut(ids: "Ids", length: int, where: str) -> "Ids":
    if ids.ndim == 1:
        if len(ids) < length:
            raise InputError(f"{where}: has {len(ids)} tokens, expected at least the {length} of one sequence; give a longer text")
        return ids[: len(ids) // length * length].reshape(-1, length).copy()
    if ids.shape[1] < length:
        raise InputError(f"{where}: has rows of {ids.shape[1]} tokens, expected at least the {length} of a sequence; ask for shorter ones")
    return ids[:, :length].copy()


def _check_ids(ids: "NDArray[np.integer]", n_vocab: int, where: str) -> None:
    import numpy as np

    bad = np.flatnonzero((ids.reshape(-1) < 0) | (ids.reshape(-1) >= n_vocab))
    if len(bad):
        raise InputError(
            f"{where}: token {bad[0]} is {ids.reshape(-1)[bad[0]]}, expected an id of 0 to {n_vocab - 1}, the model's vocabulary; "
            "was it made for another model?"
        )


def _encode(tokenizer: "Tokenizer", text: "str | _Rendered") -> list[int]:
    if isinstance(text, _Rendered):
        return tokenizer.encode_prompt(text, rendered=True)
    return tokenizer.encode(text, add_special=False, parse_special=False)


class _Rendered(str):
    """Text from a chat template: control tokens in it are meant."""


def _renderer(model: "Gguf") -> "Callable[[object], str]":
    from quantrs.chat_template import ChatTemplate
    from quantrs.tokenization import Tokenizer

    template = ChatTemplate.of_gguf(model, Tokenizer.of_gguf(model))

    def render(messages: object) -> str:
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            raise FormatError("'messages' is no list of objects with 'role' and 'content'")
        return template.render(messages, add_generation_prompt=False)

    return render


def _texts(path: str | None, renderer: "Callable[[], Callable[[object], str]]") -> "list[str | _Rendered]":
    """One newline at the end of a text is dropped."""
    if path is None:
        return [files("quantrs.calibration").joinpath(DEFAULT_TEXT).read_text(encoding="utf-8")]
    data = read_text(path)
    if not path.lower().endswith(_JSON_LINES):
        return [data.removesuffix("\n")]
    return list(_json_lines(path, data, renderer))


def _json_lines(path: str, data: str, renderer: "Callable[[], Callable[[object], str]]") -> "Iterator[str | _Rendered]":
    render: Callable[[object], str] | None = None
    for number, line in enumerate(data.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{path}: line {number} is not JSON: {error}") from None
        if isinstance(value, dict) and isinstance(value.get("text"), str):
            yield value["text"]
        elif isinstance(value, dict) and "messages" in value:
            render = render or renderer()
            try:
                yield _Rendered(render(value["messages"]))
            except FormatError as error:
                raise FormatError(f"{path}: line {number}: {error}") from None
        else:
            raise FormatError(f"{path}: line {number} has neither 'text' nor 'messages', expected an object with one of them")


def _read_array(path: str, n_vocab: int) -> "Ids":
    import numpy as np

    try:
        loaded = np.load(path, allow_pickle=False)
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError, KeyError) as error:
        raise FormatError(f"{path}: is no NumPy file of numbers: {error}") from error
    if isinstance(loaded, np.lib.npyio.NpzFile):
        with loaded:
            names = list(loaded.files)
            chosen = next((name for name in ("input_ids", "tokens") if name in names), names[0] if len(names) == 1 else None)
            if chosen is None:
                raise InputError(f"{path}: holds the arrays {', '.join(names) or 'none'}, expected one, or one called input_ids or tokens")
            try:
                ids = loaded[chosen]
            except ValueError as error:
                raise FormatError(f"{path}: {chosen} is no array of numbers: {error}") from error
    else:
        ids = loaded
    if ids.dtype.kind not in "iu" or ids.ndim not in (1, 2) or ids.size == 0:
        raise InputError(f"{path}: found {ids.dtype} {ids.shape}, expected whole numbers [n_tokens] or [n_sequences, n_tokens]")
    _check_ids(ids, n_vocab, path)
    return ids.astype(np.int32)
