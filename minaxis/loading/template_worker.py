"""The process in which chat templates run. templates.py starts it, and says why.

It imports nothing of minaxis, so that it starts quickly. Each line of its input is a request in
JSON, and each line of its output the answer. It ends when its input ends.
"""

import faulthandler
import json
import signal
import sys
from collections.abc import Mapping
from datetime import date
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import Template
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

MEMORY = 512 << 20  # bytes; without a template the process has about 50 MB
SECONDS = 1.0  # of processor time for one text
SECONDS_ON_A_CLOCK = 20.0  # where processor time cannot be limited, on Windows
CHARACTERS = 1_000_000  # of a text, besides twice the length of its messages
# A prompt with today's date would be another prompt tomorrow. Templates that ask for the date get
# the one that Llama 3's templates write where there is none.
TODAY = date(2024, 7, 26)


class Refusal(Exception):
    """The template called `raise_exception`."""


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja2's sandbox, without the products and powers that would fill the memory at once."""

    intercepted_binops = frozenset(["*", "**"])

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        size = [x if isinstance(x, (int, float)) else len(x) for x in (left, right)]
        if operator == "**" or abs(size[0] * size[1]) > 1e6:
            raise SecurityError(f"{size[0]} {operator} {size[1]} is too much for a chat")
        return super().call_binop(context, operator, left, right)


class Generation(Extension):
    """The tag `generation` marks what the assistant says, for training (SmolLM3). It is ignored."""

    tags = {"generation"}  # noqa: RUF012 (Jinja2 wants a set)

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def raise_exception(message: str) -> NoReturn:
    raise Refusal(message)


def to_json(value: Any, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, **options)


@lru_cache(maxsize=8)
def compile_template(source: str) -> Template:
    environment = Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
    )
    # What transformers offers a template.
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = TODAY.strftime
    environment.filters["tojson"] = to_json
    return environment.from_string(source)


def render(template: str, messages: list[Mapping[str, str]], variables: dict[str, Any]) -> str:
    """The text of the messages, or an exception."""
    text = compile_template(template).render(messages=messages, **variables)
    allowed = CHARACTERS + 2 * sum(len(m["content"]) for m in messages)
    if len(text) > allowed:
        raise ValueError(f"it writes {len(text)} characters, more than {allowed}")
    return text


def answer(request: dict[str, Any]) -> dict[str, str]:
    """The text, or why there is none."""
    try:
        return {"text": render(**request)}
    except Refusal as e:
        return {"refusal": str(e)[:1000]}
    except MemoryError:
        raise  # ends the process: its memory is full
    except Exception as e:
        return {"error": str(e)[:1000] or type(e).__name__}


def limit_memory() -> None:
    """Let the operating system refuse more memory. (macOS ignores it; Windows has no such call.)"""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        pass


def start_timer() -> None:
    """End this process after some time, whatever it does then."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
    else:
        faulthandler.dump_traceback_later(SECONDS_ON_A_CLOCK, exit=True)


def stop_timer() -> None:
    """Let it live."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, 0)
    else:
        faulthandler.cancel_dump_traceback_later()


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    limit_memory()
    for line in sys.stdin.buffer:
        start_timer()
        reply = json.dumps(answer(json.loads(line)))
        stop_timer()
        sys.stdout.buffer.write(reply.encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
