"""Chat templates, rendered in a sandbox, in a process of their own.

A template is a program in the language Jinja2, and it comes with downloaded weights. Jinja2's
sandbox keeps it away from files and from Python's internals, but no sandbox within a process can
bound the time and the memory that a program takes. So another process renders: template_worker.py,
under limits of the operating system. It stays alive between two calls, because to start it takes
a tenth of a second, and a call less than a millisecond. A template that exceeds a limit ends it,
and the next call starts another. Only the tiny model's template, which is ours, runs in here.
"""

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minaxis.tokenizer import AnyTokenizer

WORKER = Path(__file__).with_name("template_worker.py")


TINY_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


class TemplateRefusal(ValueError):
    """A template called `raise_exception`, because it does not support these messages."""


def render(
    tokenizer: AnyTokenizer, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool
) -> str:
    """The text that the tokenizer's chat template writes.

    Args:
        messages: dicts with "role" and "content".
        add_generation_prompt: end with the marker after which the assistant answers.

    Raises:
        TemplateRefusal: the template refuses the messages.
        ValueError: no template, one that cannot be rendered, or one that takes too much time,
            memory or text.
    """
    if not tokenizer.chat_template:
        raise ValueError(
            "this tokenizer has no chat template (a base model?): add chat_template.jinja to a "
            "Hugging Face folder, or pass tokenizer.encode(text) to generate"
        )
    token: dict[int | None, str] = {i: s for s, i in tokenizer.special.items()}
    variables = {
        "tools": None,
        "documents": None,
        "add_generation_prompt": add_generation_prompt,
        "enable_thinking": False,
        "bos_token": token.get(tokenizer.bos, ""),
        "eos_token": token.get(tokenizer.eos, ""),
    }
    request: dict[str, Any] = {
        "template": tokenizer.chat_template,
        "messages": list(messages),
        "variables": variables,
    }
    if tokenizer.chat_template == TINY_TEMPLATE:
        from minaxis.loading.template_worker import render as render_here

        return render_here(**request)
    answer = _worker.ask(json.dumps(request).encode())
    if "refusal" in answer:
        raise TemplateRefusal(f"the chat template refuses these messages: {answer['refusal']}")
    if "error" in answer:
        raise ValueError(f"the chat template cannot be rendered: {answer['error']}")
    return answer["text"]


class _Worker:
    """The process, started when it is needed."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.owner = 0  # the process that started it: after a fork, the pipes are the parent's
        self.lock = threading.Lock()

    def ask(self, request: bytes) -> dict[str, Any]:
        """Send one request, and wait for its answer. An interrupt in between ends the worker."""
        with self.lock:
            process = self._running()
            assert process.stdin is not None
            assert process.stdout is not None
            line = b""
            try:
                process.stdin.write(request + b"\n")
                process.stdin.flush()
                line = process.stdout.readline()
                return json.loads(line)
            except (OSError, ValueError):
                raise ValueError(
                    "the chat template was stopped: it takes too much time or memory (more than "
                    "1 s of processor time, or 512 MB)"
                ) from None
            finally:
                if not line.endswith(b"\n"):
                    self.stop()

    def _running(self) -> "subprocess.Popen[bytes]":
        forked = self.owner != os.getpid()
        if self.process is None or forked or self.process.poll() is not None:
            packages = os.pathsep.join(filter(None, sys.path))  # it finds what this process finds
            self.process = subprocess.Popen(
                [sys.executable, str(WORKER)], env=os.environ | {"PYTHONPATH": packages},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            self.owner = os.getpid()
        return self.process

    def stop(self) -> None:
        """End the process, if this process started it."""
        if self.process is not None and self.owner == os.getpid():
            self.process.kill()
            self.process.communicate()
        self.process = None


_worker = _Worker()
atexit.register(_worker.stop)
