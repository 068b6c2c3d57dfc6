"""The page's conversation in a terminal: `python cap_demo.py --chat`."""

import shutil
import sys
import textwrap
from itertools import zip_longest
from typing import Any

from minaxis.generation import SamplingParams
from minaxis.support.meter import gauge
from minaxis.web.answers import Engine

SIDES = ("baseline", "capped")
HELP = "Enter a message; /undo takes back a turn, /clear all of them, and Ctrl-D ends."


def chat(engine: Engine, sampling: SamplingParams) -> None:
    """Ask for messages until the input ends, and print how both sides answer each."""
    print(
        f"{engine.info['model']}: the baseline on the left, the capped model on the right.\n{HELP}"
    )
    talks: dict[str, list[dict[str, str]]] = {side: [] for side in SIDES}
    while True:
        try:
            message = input("\n> ").strip()
        except EOFError:
            print()
            return
        if message in ("/undo", "/clear"):
            for talk in talks.values():
                del talk[-2 if message == "/undo" else 0 :]
            print(f"{len(talks['baseline']) // 2} turns are left.")
        elif message:
            columns = []
            for side, talk in talks.items():
                asked = [*talk, {"role": "user", "content": message}]
                try:
                    text, head = answer(engine, side, asked, sampling)
                except ValueError as error:  # the context is full
                    print(error)
                    break
                columns.append([head, *textwrap.wrap(text, column_width())])
                talks[side] = [*asked, {"role": "assistant", "content": text}]
            for left, right in zip_longest(*columns, fillvalue=""):
                print(f"{left:{column_width() + 3}s}{right}".rstrip())


def answer(
    engine: Engine, side: str, messages: list[dict[str, str]], sampling: SamplingParams
) -> tuple[str, str]:
    """The reply of one side, and a line that says where it lies on the axis.

    On a terminal, a meter follows every token.
    """
    info = engine.info
    layer, floors = info["readLayer"], info["thresholds"][info["readLayer"]]
    scale = (floors[round(info["percentile"])], floors[0], floors[100])
    cap = {"kind": "cap", "layers": info["capLayers"], "percentile": round(info["percentile"])}
    request = {
        "messages": messages, "seed": sampling.seed + len(messages) // 2,
        "temperature": sampling.temperature, "topP": sampling.top_p,
        "maxTokens": sampling.max_new_tokens, "intervention": cap if side == "capped" else None,
    }  # fmt: skip
    text, who = "", ""
    plain: list[Any] = []
    for event in engine.reply(request):
        if event["type"] == "token":
            text += event["text"]
            if sys.stdout.isatty():
                now = event["projections"][layer]
                print(f"\r\033[K{side:9s}{now:7.1f} {gauge(now, *scale)} {text[-30:]!r}", end="")
        elif event["type"] == "plain":
            plain = [row[layer] for row in event["projections"]]
        elif event["type"] == "reading":
            who = event["speaker"] or "no clear speaker"
            if event["forbidden"]:
                who += ": LEAKS THE SECRET" if event["right"] else ": keeps the secret"
    if sys.stdout.isatty():
        print("\r\033[K", end="", flush=True)
    if not plain:
        return text, f"{side}: empty reply"
    mean = sum(plain) / len(plain)
    return text, f"{mean:6.1f} {gauge(mean, *scale, width=16)} {who}"


def column_width() -> int:
    return min(shutil.get_terminal_size((100, 24)).columns, 140) // 2 - 2
