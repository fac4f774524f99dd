"""Chat templates: rendered as transformers does, and harmless when hostile."""

from __future__ import annotations

import time

import pytest

from quantrs.chat_template import ChatTemplate
from quantrs.errors import FormatError

MESSAGES = [{"role": "system", "content": "Be <brief>."}, {"role": "user", "content": "Héllo"}]


def test_a_model_without_template_gets_chatml() -> None:
    template = ChatTemplate(None)
    assert template.is_fallback
    assert template.render(MESSAGES) == (
        "<|im_start|>system\nBe <brief>.<|im_end|>\n<|im_start|>user\nHéllo<|im_end|>\n<|im_start|>assistant\n"
    )
    assert not template.render(MESSAGES, add_generation_prompt=False).endswith("assistant\n")


def test_blocks_leave_no_lines_of_their_own() -> None:
    source = "{% for m in messages %}\n  {% if m.role == 'user' %}\n{{ m.content }}\n  {% endif %}\n{% endfor %}\n"
    assert ChatTemplate(source).render(MESSAGES) == "Héllo\n"


def test_the_names_of_transformers_are_there() -> None:
    source = (
        "{{ bos_token }}{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% if loop.first %}{% continue %}"
        "{% endif %}{% generation %}{{ m | tojson }}{% endgeneration %}{% endfor %}{{ ns.n }}{{ strftime_now('%Y') | length }}{{ extra }}"
    )
    rendered = ChatTemplate(source, {"bos_token": "<s>"}).render(MESSAGES, variables={"extra": "!"})
    assert rendered == '<s>{"role": "user", "content": "Héllo"}24!'


def test_what_the_template_refuses_is_said() -> None:
    with pytest.raises(FormatError, match="only users may speak"):
        ChatTemplate("{{ raise_exception('only users may speak') }}").render(MESSAGES)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "may not use"),
        ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", "may not use"),
        ("{{ messages.append(1) }}", "may not use"),
        ("{% for i in range(10**9) %}x{% endfor %}", "Range too big"),
        ("{{ 'x' * 10**10 }}", "memory"),
        ("{{ '%1000000000d' % 1 }}", "memory"),
        ("{% for i in range(90000) %}{{ 'x' * 1000 }}{% endfor %}", "characters"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "deeply"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "seconds"),
        ("{{ x", "unexpected end of template"),
    ],
)
def test_a_hostile_template_gets_an_error_in_seconds(source: str, reason: str) -> None:
    start = time.monotonic()
    with pytest.raises(FormatError, match=f"(?s)tokenizer.chat_template: .*{reason}"):
        ChatTemplate(source).render(MESSAGES)
    assert time.monotonic() - start < 25
