"""Messages to token ids, and which of the tokens are the response.

A chat model reads `<|im_start|>user\\nHello<|im_end|>...`: a template, carried by the model file,
writes the messages into one string, and the special tokens in it become control ids. The same
string typed by a user must not: otherwise a message could end its own turn and speak as someone
else. So only special tokens that the *template* wrote are turned into control ids.
"""

import re
from functools import lru_cache

from minaxis.tokenizer import Tokenizer

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}


@lru_cache(maxsize=8)
def _compile(template: str):
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message):
        raise ValueError(f"the chat template refuses these messages: {message}")

    # A template comes with downloaded weights: the sandbox denies it Python's internals.
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = raise_exception
    return environment.from_string(template)


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

    # Break every special-token string inside the contents with a character that none of them
    # uses; the template's own special tokens then stand out, and the guard is taken out again.
    written = "".join(m["content"] for m in messages)
    guard = next(c for c in map(chr, range(0xE000, 0xF900)) if c not in written)
    special = re.compile("|".join(re.escape(s) for s in sorted(tokenizer.special, key=len)[::-1]))
    guarded = [
        m | {"content": special.sub(lambda s: s[0][0] + guard + s[0][1:], m["content"])}
        for m in messages
    ]
    names = {i: s for s, i in tokenizer.special.items()}
    try:
        text = _compile(tokenizer.chat_template).render(
            messages=guarded,
            add_generation_prompt=add_generation_prompt,
            enable_thinking=False,
            bos_token=names.get(tokenizer.bos, ""),
            eos_token=names.get(tokenizer.stop[0], "") if tokenizer.stop else "",
        )
    except ValueError:
        raise
    except Exception as e:
        raise ValueError(f"the chat template cannot be rendered: {e}") from e

    ids, end = [], 0
    for match in special.finditer(text):
        ids += tokenizer.encode(text[end : match.start()].replace(guard, ""))
        ids.append(tokenizer.special[match[0]])
        end = match.end()
    return ids + tokenizer.encode(text[end:].replace(guard, ""))


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
        response = tokenizer.encode(m["content"])
        end = start + len(response)
        if ids[start:end] != response:
            raise ValueError(
                f"cannot locate the response in message {i}: this chat template does not write "
                "an assistant turn as generation prompt + content"
            )
        mask[start:end] = [True] * len(response)
    return ids, mask
