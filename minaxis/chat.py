"""Messages to token ids, and which of the tokens are the response.

A chat model reads `<|im_start|>user\\nHello<|im_end|>...`: a template, carried by the model file,
writes the messages into one string, and the special tokens in it become control ids. The same
string typed by a user must not: otherwise a message could end its own turn and speak as someone
else. So only special tokens that the *template* wrote are turned into control ids.
"""

import json
import re
import sys
from functools import lru_cache

from minaxis.tokenizer import Tokenizer

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}
_MAX_LINES = 1_000_000  # of Python that rendering may run; a long chat needs some thousands


class Refusal(ValueError):
    """A template called `raise_exception`: it has no place for these messages."""


@lru_cache(maxsize=8)
def _compile(template: str):
    from jinja2.exceptions import SecurityError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Sandbox(ImmutableSandboxedEnvironment):
        """A template comes with downloaded weights: the sandbox denies it Python's internals.

        We deny it two more things that run for ever within a single step.
        """

        intercepted_binops = frozenset(["*", "**"])

        def call_binop(self, context, operator, left, right):
            size = [x if isinstance(x, (int, float)) else len(x) for x in (left, right)]
            if operator == "**" or abs(size[0] * size[1]) > 1e6:
                raise SecurityError(f"{size[0]} {operator} {size[1]} is too much for a chat")
            return super().call_binop(context, operator, left, right)

    def raise_exception(message):
        raise Refusal(f"the chat template refuses these messages: {message}")

    environment = Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    # What transformers gives a template, but for `strftime_now`: a prompt that holds the day's
    # date would not be the same tomorrow. Llama 3's templates then use a fixed date.
    environment.globals["raise_exception"] = raise_exception
    environment.filters["tojson"] = lambda x, **kwargs: json.dumps(x, ensure_ascii=False, **kwargs)
    return environment.from_string(template)


def _render(tokenizer: Tokenizer, messages: list[Message], add_generation_prompt: bool) -> str:
    """The text that the template writes, or a ValueError if it cannot, or does not come to an end.

    Loops and macros can nest, so nothing in a template bounds its work. We count the lines of
    Python that it runs, with the interpreter's own means of tracing, and stop it from there.
    """
    lines = 0

    def count(frame, event, argument):
        nonlocal lines
        lines += event == "line"
        if lines > _MAX_LINES:
            raise ValueError(f"the chat template was stopped after {_MAX_LINES} steps: it loops")
        return count

    names = {i: s for s, i in tokenizer.special.items()}
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
            bos_token=names.get(tokenizer.bos, ""),
            eos_token=names.get(tokenizer.eos, ""),
        )
    finally:
        sys.settrace(debugger)


def _render_system(tokenizer: Tokenizer, messages: list[Message], prompt: bool) -> str:
    """As `_render`; where the template has no system role (Gemma's refuses it, others drop it),
    the instruction stands before the first question instead, with a blank line between."""
    if not messages or messages[0]["role"] != "system":
        return _render(tokenizer, messages, prompt)
    instruction, *rest = messages
    try:
        text = _render(tokenizer, messages, prompt)
        if instruction["content"].strip() in text:
            return text
    except Refusal:
        pass
    if not rest or rest[0]["role"] != "user":
        return _render(tokenizer, messages, prompt)
    question = f"{instruction['content']}\n\n{rest[0]['content']}"
    return _render(tokenizer, [rest[0] | {"content": question}, *rest[1:]], prompt)


def encode_chat(
    tokenizer: Tokenizer, messages: list[Message], add_generation_prompt: bool = True
) -> list[int]:
    """Token ids of a conversation.

    Args:
        messages: dicts with "role" and "content". An empty system message counts as none.
        add_generation_prompt: end with the marker after which the assistant answers.

    Raises:
        ValueError: no template, or one that cannot be rendered, or malformed messages.
    """
    if not tokenizer.chat_template:
        raise ValueError(
            "this tokenizer has no chat template (a base model?): pass tokenizer.encode(text) "
            "to generate instead"
        )
    for m in messages:
        if not isinstance(m, dict) or not isinstance(m.get("content"), str) or "role" not in m:
            raise ValueError(f"a message must be {{'role': ..., 'content': text}}, got {m!r}")
    messages = [m for m in messages if m["content"] or m["role"] != "system"]

    # Break up every special-token string inside the contents with a character that none of them
    # uses; the template's own special tokens then stand out, and the guard is taken out again.
    written = "".join(m["content"] for m in messages)
    guard = next(c for c in map(chr, range(0xE000, 0xF900)) if c not in written)
    longest_first = sorted(tokenizer.special, key=len)[::-1]
    special = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")  # (?!): no match
    guarded = [
        m | {"content": special.sub(lambda s: guard.join(s[0]), m["content"])} for m in messages
    ]
    try:
        text = _render_system(tokenizer, guarded, add_generation_prompt)
    except ValueError:
        raise
    except Exception as e:
        raise ValueError(f"the chat template cannot be rendered: {e}") from e

    ids, end = [], 0
    for match in special.finditer(text):
        piece = text[end : match.start()].replace(guard, "")
        if piece:
            ids += tokenizer.encode(piece, inside=end > 0)
        ids.append(tokenizer.special[match[0]])
        end = match.end()
    if piece := text[end:].replace(guard, ""):
        ids += tokenizer.encode(piece, inside=end > 0)
    return ids


def response_mask(tokenizer: Tokenizer, messages: list[Message]) -> tuple[list[int], list[bool]]:
    """Token ids of a conversation, and for each whether it is part of an assistant's response.

    A response is what the assistant says: no prompt, no template, no end-of-turn token.

    Raises:
        ValueError: the template rewrites earlier turns, so that responses cannot be located.
    """
    ids = encode_chat(tokenizer, messages, add_generation_prompt=False)
    mask = [False] * len(ids)
    for i, m in enumerate(messages):
        if m["role"] != "assistant":
            continue
        start = len(encode_chat(tokenizer, messages[:i]))
        response = tokenizer.encode(m["content"], inside=True)
        end = start + len(response)
        if ids[start:end] != response:
            raise ValueError(
                f"cannot locate the response in message {i}: this chat template does not write "
                "an assistant turn as generation prompt + content"
            )
        mask[start:end] = [True] * len(response)
    return ids, mask
