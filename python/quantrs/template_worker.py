"""Renders one chat template in a process of its own, which has little memory and little time; see `quantrs.chat_template`.

Reads a JSON object from standard input, writes one to standard output: ``{"text": ...}`` or ``{"error": ...}``.
"""

import json
import sys
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import nodes
    from jinja2.parser import Parser
    from jinja2.sandbox import SandboxedEnvironment

__all__ = ["main", "render"]


def main() -> None:
    """Answer one request."""
    request = json.load(sys.stdin)
    limit_process(request["cpu_seconds"], request["memory_bytes"])
    from jinja2.exceptions import SecurityError, TemplateError

    try:
        answer = {"text": render(request["template"], request["variables"], request["max_characters"])}
    except SecurityError as error:
        answer = {"error": f"the template reached for something that templates may not use: {error}"}
    except TemplateError as error:
        answer = {"error": str(error) or type(error).__name__}
    except MemoryError:
        answer = {"error": "the template needs too much memory"}
    except RecursionError:
        answer = {"error": "the template nests too deeply"}
    except Exception as error:  # whatever a template can provoke is the template's error
        answer = {"error": f"{type(error).__name__}: {error}"[:1000]}
    json.dump(answer, sys.stdout)


def limit_process(cpu_seconds: int, memory_bytes: int) -> None:
    """Let the system end this process when it takes too long, and refuse it memory. Without effect on Windows."""
    try:
        import resource
    except ImportError:  # there the caller's clock and `max_characters` remain
        return
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    try:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    except (ValueError, OSError):  # macOS knows no such limit
        return


def render(template: str, variables: dict[str, object], max_characters: int) -> str:
    """The text of a template, as ``transformers`` renders it.

    Raises
    ------
    jinja2.exceptions.TemplateError
        The template is malformed, refuses its input, or writes more than `max_characters`.
    """
    from jinja2.exceptions import TemplateRuntimeError

    parts: list[str] = []
    room = max_characters
    for part in _environment().from_string(template).generate(**variables):
        room -= len(part)
        if room < 0:
            raise TemplateRuntimeError(f"the template wrote more than {max_characters} characters")
        parts.append(part)
    return "".join(parts)


def _environment() -> "SandboxedEnvironment":
    from jinja2.exceptions import TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """``{% generation %}`` marks what a model said, for training; for rendering it is nothing."""

        tags = {"generation"}  # noqa: RUF012  # jinja2's way

        def parse(self, parser: "Parser") -> "list[nodes.Node]":
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(
        value: object,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def strftime_now(form: str) -> str:
        return datetime.now().strftime(form)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    return environment
