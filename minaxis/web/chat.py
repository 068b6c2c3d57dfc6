"""The page's conversation in a terminal: `python cap_demo.py --chat`."""

import shutil
import sys
import textwrap
from itertools import zip_longest

from minaxis.chat import Message
from minaxis.generation import SamplingParams
from minaxis.support.meter import gauge
from minaxis.web.answers import Engine

HELP = "Type a message. /undo takes back a turn, /clear all of them, and Ctrl-D ends."


def chat(engine: Engine, sampling: SamplingParams) -> None:
    """Ask for messages until the input ends, and print how both sides answer each."""
    width = min(shutil.get_terminal_size((100, 24)).columns, 140) // 2 - 2
    conversations: dict[str, list[Message]] = {"baseline": [], "capped": []}
    print(f"{engine.info['model']}: on the left as it is, on the right capped.\n{HELP}")
    while True:
        try:
            message = input("\n> ").strip()
        except EOFError:
            return print()
        if message in ("/undo", "/clear"):
            for messages in conversations.values():
                del messages[-2 if message == "/undo" else 0 :]
            print(f"Turns left: {len(conversations['baseline']) // 2}")
        elif message:
            asked: Message = {"role": "user", "content": message}
            try:
                replies = {
                    side: answer(engine, [*messages, asked], sampling, capped=side == "capped")
                    for side, messages in conversations.items()
                }
            except ValueError as error:  # the context is full
                print(error)
                continue
            for side, (text, _) in replies.items():
                conversations[side] += [asked, {"role": "assistant", "content": text}]
            columns = ([head, *textwrap.wrap(text, width)] for text, head in replies.values())
            for left, right in zip_longest(*columns, fillvalue=""):
                print(f"{left:{width + 3}s}{right}".rstrip())


def answer(
    engine: Engine, messages: list[Message], sampling: SamplingParams, *, capped: bool
) -> tuple[str, str]:
    """The reply of one side, and a line that says where the unchanged model places it.

    On a terminal, a meter follows every token.
    """
    info, layer, text, end = engine.info, engine.info["readLayer"], "", "empty reply"
    percentile, floors = round(info["percentile"]), info["thresholds"][layer]
    low, floor, high = floors[0], floors[percentile], floors[100]
    cap = {"kind": "cap", "layers": info["capLayers"], "percentile": percentile}
    request = {
        "messages": messages, "seed": sampling.seed + len(messages) // 2, "topP": sampling.top_p,
        "temperature": sampling.temperature, "maxTokens": sampling.max_new_tokens,
        "intervention": cap if capped else None,
    }  # fmt: skip
    for event in engine.reply(request):
        if event["type"] == "token":
            text += event["text"]
            if sys.stdout.isatty():
                now = event["projections"][layer]
                line = f"{'capped' if capped else 'baseline':8s} {now:6.1f}"
                print(f"\r\033[K{line} {gauge(now, floor, low, high)} {text[-30:]!r}", end="")
                sys.stdout.flush()
        elif event["type"] == "plain":
            mean = sum(row[layer] for row in event["projections"]) / len(event["projections"])
            end = f"{mean:6.1f} {gauge(mean, floor, low, high, width=16)}"
        elif event["type"] == "reading":
            end += f" {event['speaker'] or 'no clear speaker'}"
            if event["forbidden"]:
                end += " LEAKS THE SECRET" if event["right"] else " keeps the secret"
    if sys.stdout.isatty():
        print("\r\033[K", end="")
    return text, end
