"""Chat templates, rendered in a sandbox.

A template is a program in the language Jinja2, and it comes with downloaded weights. So it gets no
access to Python's internals (Jinja2's own sandbox), no product or power that takes forever, and no
more than a million steps.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from minaxis.tokenizer import AnyTokenizer

if TYPE_CHECKING:
    from jinja2 import Template

_MAX_STEPS = 1_000_000  # lines of Python; a long conversation needs some thousands


class TemplateRefusal(ValueError):
    """A template called `raise_exception`, because it does not support these messages."""


def render(
    tokenizer: AnyTokenizer, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool
) -> str:
    """The text that the tokenizer's chat template writes.

    Loops and macros can nest, so no part of a template bounds its work. We count the lines of
    Python that it runs, with the interpreter's own tracing, and stop it at a limit.

    Args:
        messages: dicts with "role" and "content".
        add_generation_prompt: end with the marker after which the assistant answers.

    Raises:
        TemplateRefusal: the template refuses the messages.
        ValueError: no template, one that cannot be rendered, or one that takes too many steps.
    """
    if not tokenizer.chat_template:
        raise ValueError(
            "this tokenizer has no chat template (a base model?): pass tokenizer.encode(text) "
            "to generate instead"
        )
    token: dict[int | None, str] = {i: s for s, i in tokenizer.special.items()}
    steps = 0

    def count(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal steps
        steps += event == "line"
        if steps > _MAX_STEPS:
            raise ValueError(f"the chat template was stopped after {_MAX_STEPS} steps: it loops")
        return count

    try:
        template = _compile(tokenizer.chat_template)
        debugger = sys.gettrace()
        sys.settrace(count)
        try:
            return template.render(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                enable_thinking=False,
                bos_token=token.get(tokenizer.bos, ""),
                eos_token=token.get(tokenizer.eos, ""),
            )
        finally:
            sys.settrace(debugger)
    except ValueError:
        raise
    except Exception as e:
        raise ValueError(f"the chat template cannot be rendered: {e}") from e


@lru_cache(maxsize=8)
def _compile(template: str) -> "Template":
    from jinja2.exceptions import SecurityError
    from jinja2.runtime import Context
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Sandbox(ImmutableSandboxedEnvironment):
        """Jinja2's sandbox. It also refuses what would run forever within a single step."""

        intercepted_binops = frozenset(["*", "**"])

        def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
            size = [x if isinstance(x, (int, float)) else len(x) for x in (left, right)]
            if operator == "**" or abs(size[0] * size[1]) > 1e6:
                raise SecurityError(f"{size[0]} {operator} {size[1]} is too much for a chat")
            return super().call_binop(context, operator, left, right)

    def raise_exception(message: str) -> NoReturn:
        raise TemplateRefusal(f"the chat template refuses these messages: {message}")

    def to_json(value: Any, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=False, **options)

    environment = Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    # What transformers offers a template, except `strftime_now`: a prompt with today's date would
    # be another prompt tomorrow. Llama 3's templates then use a fixed date.
    environment.globals["raise_exception"] = raise_exception
    environment.filters["tojson"] = to_json
    return environment.from_string(template)
