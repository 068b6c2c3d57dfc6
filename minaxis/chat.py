"""Messages to token ids, and which of the ids are the response.

A chat model was trained on conversations in one format, such as

    <|im_start|>user\\nHello<|im_end|>\\n<|im_start|>assistant\\n

A *template*, a small program in the model file, writes messages in that format. In its text,
strings like `<|im_start|>` become special tokens: single ids that say who speaks and where a turn
ends. Only the template may write them. If the same string in a user's message became a special
token, a message could end its own turn and continue as the system. So `encode_chat` tells the
template's special tokens from those inside messages, which are encoded as ordinary text.
"""

import re
from itertools import takewhile
from typing import Any

from minaxis.loading.templates import TemplateRefusal, render
from minaxis.tokenizer import AnyTokenizer

Message = dict[str, str]  # {"role": one of ROLES, "content": text}
ROLES = ("system", "user", "assistant", "tool", "developer")


def encode_chat(
    tokenizer: AnyTokenizer, messages: list[Message], *, add_generation_prompt: bool = True
) -> list[int]:
    """Token ids of a conversation.

    Args:
        messages: dicts with "role" and "content", both texts. An empty system message is left out.
        add_generation_prompt: end with the marker after which the assistant answers.

    Raises:
        ValueError: no template, a template that cannot be rendered, or malformed messages.
    """
    for m in messages:
        _check(m)
    messages = [m for m in messages if m["content"] or m["role"] != "system"]

    # Break up every special-token string inside the messages: put a character that no message
    # uses, the guard, after each of its letters. In the rendered text, the template wrote those
    # special tokens that no guard follows. Then remove the guard.
    used = set().union(*(text for m in messages for text in m.values()))
    guard = next((c for c in map(chr, range(0xE000, 0xF900)) if c not in used), None)
    if guard is None:
        raise ValueError("the messages use all 6,400 private-use characters: leave out one of them")
    longest_first = sorted(tokenizer.special, key=len, reverse=True)
    any_special = "|".join(map(re.escape, longest_first)) or "(?!)"  # (?!): no match
    special = re.compile(f"({any_special})(?!{guard})")
    guarded = [
        {key: special.sub(lambda s: guard.join(s[0]) + guard, text) for key, text in m.items()}
        | {"role": m["role"]}
        for m in messages
    ]
    text = _write(tokenizer, guarded, add_generation_prompt)

    ids: list[int] = []
    for i, piece in enumerate(special.split(text)):  # ordinary, special, ordinary, ...
        if i % 2:
            ids.append(tokenizer.special[piece])
        elif ordinary := piece.replace(guard, ""):
            ids += tokenizer.encode(ordinary, inside=i > 0)
    return ids


def response_mask(tokenizer: AnyTokenizer, messages: list[Message]) -> tuple[list[int], list[bool]]:
    """Token ids of a conversation, and for each whether it belongs to an assistant's response.

    A response is what the assistant says: no prompt, no template, no end-of-turn token.

    Raises:
        ValueError: as for `locate_responses`.
    """
    ids, responses = locate_responses(tokenizer, messages)
    return ids, [any(i in response for response in responses) for i in range(len(ids))]


def locate_responses(
    tokenizer: AnyTokenizer, messages: list[Message]
) -> tuple[list[int], list[range]]:
    """Token ids of a conversation, and the positions of each of the assistant's responses in it.

    Some templates remove the white space around a message. Then it is in no response.

    Raises:
        ValueError: the template refuses the messages, or changes a response.
    """
    ids = encode_chat(tokenizer, messages, add_generation_prompt=False)
    responses = []
    for i, m in enumerate(messages):
        if m["role"] != "assistant":
            continue
        before = messages[:i]
        start = len(encode_chat(tokenizer, before, add_generation_prompt=False)) if before else 0
        # In an earlier turn, some templates leave out a part of what precedes the answer (the
        # empty thoughts of a model whose thinking is switched off).
        header = encode_chat(tokenizer, before)[start:]
        same = takewhile(lambda pair: pair[0] == pair[1], zip(ids[start:], header, strict=False))
        start += len(list(same))
        said, bare = m["content"], m["content"].strip()
        for text in (said, " " + said, bare, " " + bare):  # some write a space before a response
            response = tokenizer.encode(text, inside=True)
            if ids[start : start + len(response)] == response:
                break
        else:
            raise ValueError(
                f"cannot locate the response in message {i}: the chat template changes it"
            )
        responses.append(range(start, start + len(response)))
    return ids, responses


def _check(message: Any) -> None:
    good = isinstance(message, dict) and {"role", "content"} <= message.keys()
    if not good or not all(isinstance(text, str) for text in message.values()):
        raise ValueError(f"messages must be {{'role': ..., 'content': text}}, got {message!r}")
    # Templates write the role between control characters: another word could make a special token.
    if message["role"] not in ROLES:
        raise ValueError(f"the role must be one of {', '.join(ROLES)}, got {message['role']!r}")


def _write(tokenizer: AnyTokenizer, messages: list[Message], add_generation_prompt: bool) -> str:
    """The text of a conversation in the model's format.

    Some templates have no system role: Gemma's refuses it, others leave it out. Then the system
    prompt goes to the start of the first user turn instead, followed by a blank line.
    """
    if not messages or messages[0]["role"] != "system":
        return render(tokenizer, messages, add_generation_prompt=add_generation_prompt)
    system, *rest = messages
    can_move = bool(rest) and rest[0]["role"] == "user"
    try:
        text = render(tokenizer, messages, add_generation_prompt=add_generation_prompt)
        if system["content"].strip() in text or not can_move:
            return text
    except TemplateRefusal:
        if not can_move:
            raise
    first = rest[0] | {"content": f"{system['content']}\n\n{rest[0]['content']}"}
    return render(tokenizer, [first, *rest[1:]], add_generation_prompt=add_generation_prompt)
