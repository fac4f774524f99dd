"""Turn a conversation into the text that a model was trained on, with the template that its file carries.

Templates come from strangers. They run in Jinja's sandbox, in a process of their own with limits on processor time, memory and
output: neither a walk to Python's insides nor an endless loop nor ``'x' * 10**10`` gets further than an error message.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from quantrs.errors import FormatError

if TYPE_CHECKING:
    from quantrs._native import Gguf
    from quantrs.tokenization import Tokenizer

__all__ = ["CHATML", "ChatTemplate"]

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""Used for models that carry no template; the format that most of those expect."""

_CPU_SECONDS = 5
_WALL_SECONDS = 20
_MEMORY_BYTES = 512 << 20
_MAX_CHARACTERS = 16 << 20
_START = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from quantrs.template_worker import main; main()"


class ChatTemplate:
    """A model's chat template.

    Parameters
    ----------
    source
        Jinja text as in ``tokenizer.chat_template``; None for `CHATML`.
    special_tokens
        Texts for names such as ``bos_token`` that templates use.
    """

    def __init__(self, source: str | None, special_tokens: Mapping[str, str] | None = None) -> None:
        self.source = CHATML if source is None else source
        self.is_fallback = source is None
        self.stops: tuple[str, ...] = ("<|im_end|>",) if source is None else ()
        """Texts that end an answer and need not be tokens of the model."""
        self._special_tokens = dict(special_tokens or {})

    @staticmethod
    def of_gguf(gguf: "Gguf", tokenizer: "Tokenizer") -> "ChatTemplate":
        """The template of a model file.

        Raises
        ------
        FormatError
            ``tokenizer.chat_template`` is not text.
        """
        source = gguf.get("tokenizer.chat_template")
        if source is not None and not isinstance(source, str):
            raise FormatError(f"tokenizer.chat_template: found {gguf.value_type('tokenizer.chat_template')}, expected a string")
        vocabulary = tokenizer.vocabulary
        ids = {"bos_token": vocabulary.bos_id, "eos_token": vocabulary.eos_id, "unk_token": vocabulary.unknown_id}
        return ChatTemplate(source, {name: tokenizer.token_text(i) for name, i in ids.items() if i is not None})

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, object]] | None = None,
        variables: Mapping[str, object] | None = None,
    ) -> str:
        """Text of a conversation, equal to ``apply_chat_template`` of transformers.

        Parameters
        ----------
        messages
            Mappings with ``role`` and ``content``.
        add_generation_prompt
            End with the words that begin an answer.
        tools
            Descriptions of functions, for templates that know them.
        variables
            More names for the template, such as ``enable_thinking``.

        Raises
        ------
        FormatError
            The template is malformed, refuses these messages, is not allowed what it tries, or takes too much time, memory or room.
        """
        request = {
            "template": self.source,
            "variables": {
                **self._special_tokens,
                **(variables or {}),
                "messages": [dict(message) for message in messages],
                "tools": None if tools is None else list(tools),
                "documents": None,
                "add_generation_prompt": add_generation_prompt,
            },
            "cpu_seconds": _CPU_SECONDS,
            "memory_bytes": _MEMORY_BYTES,
            "max_characters": _MAX_CHARACTERS,
        }
        answer = _answer(json.dumps(request))
        text = answer.get("text")
        if not isinstance(text, str):
            raise FormatError(f"tokenizer.chat_template: {answer.get('error')}")
        return text


def _answer(request: str) -> dict[str, object]:
    """Run the worker. It is given the module paths instead of the environment: nothing in the working folder gets imported."""
    paths = [str(Path(__file__).resolve().parent.parent), *(path for path in sys.path if path)]
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _START, json.dumps(paths)],
            input=request.encode(),
            capture_output=True,
            timeout=_WALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"the template ran for more than {_WALL_SECONDS} seconds"}
    if done.returncode < 0:
        return {"error": f"the template ran for more than {_CPU_SECONDS} seconds of processor time, or out of memory"}
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return {"error": f"rendering failed: {lines[-1] if lines else 'no message'}"}
    return answer if isinstance(answer, dict) else {}
