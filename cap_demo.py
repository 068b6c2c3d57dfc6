"""From drift to cap: watch the projection on the Assistant Axis while a model answers.

    python cap_demo.py                                   # 15 s: one conversation that drifts, rates
    python cap_demo.py --all                             # 3 minutes: the paper in miniature
    python cap_demo.py --model smollm2 --all             # 15 minutes, after fit_axis.py
    python cap_demo.py --model smollm2 "Who are you?"    # 15 s, after fit_axis.py
    python cap_demo.py --model smollm2 --steer -0.5 "Who are you?" "And what do you fear?"

Without messages, the tiny model talks about itself until the Assistant is gone, with and without a
cap. --all runs every experiment of minaxis/paper/ and writes figures, results.json and report.html.

With messages, each is one turn of a conversation. The baseline, the capped and the steered model
have a conversation each. The number is the mean projection of a reply on the unit axis, which
points toward the Assistant. The bars are the reply's tokens; on a terminal, colours show them.
"""

import argparse
import shutil
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import zip_longest
from pathlib import Path

import torch

import minaxis as mx
from minaxis.activation_cap import default_layers
from minaxis.hooks import check_layers
from minaxis.loading.models import find
from minaxis.paper import open_model, report, tiny
from minaxis.paper.claims import Experiment
from minaxis.paper.controls import with_random_axes
from minaxis.paper.demo import (
    Answer,
    DriftingConversation,
    Reply,
    answer_messages,
    demo_rates,
    drifting_conversation,
)
from minaxis.paper.lab import CAP_PERCENTILE, Compared
from minaxis.support import arguments as cli
from minaxis.support.files import read_json, write_json
from minaxis.support.meter import bars, coloured, gauge
from minaxis.tiny.lab import TinyLab
from minaxis.tiny.questions import fit_tiny_axis
from minaxis.tiny.world import World
from minaxis.tokenizer import AnyTokenizer

DOCS = Path(__file__).parent / "docs"


def arguments() -> argparse.Namespace:
    p = cli.parser(__doc__)
    add = p.add_argument
    add("messages", nargs="*", help="the user's messages, one for each turn")
    add("--all", action="store_true", help="run every experiment, and write figures and a report")
    add("--scale", type=float, default=1.0, help="with --all: factor on the numbers of questions")
    add("--write-docs", type=Path, nargs="+", metavar="FOLDER",
        help="put the results of --all in these folders into docs/")  # fmt: skip
    add("--axis", type=Path,
        help="axis file (default: out/MODEL/axis.pt; tiny: the one beside the model)")  # fmt: skip
    add("--system", default="", help="system prompt, for example a role")
    add("--layers", type=int, nargs="+", help="layers to cap (default: 70 to 90 %% of the depth)")
    add("--percentile", type=float, default=75,
        help="percentile of the calibration projections at which the floor is set")  # fmt: skip
    add("--steer", type=float, metavar="COEFFICIENT",
        help="also steer, by this many mean residual norms toward the Assistant")  # fmt: skip
    add("--tokens", type=int, default=64, help="maximum number of tokens in a reply")
    add("--out", type=Path,
        help="JSON file for the replies; with --all, a folder (default: out/report, or "
             "out/MODEL/report for an open model)")  # fmt: skip
    args = p.parse_args()
    for name in ("system", "layers", "percentile", "steer", "tokens"):
        if not args.messages and getattr(args, name) != p.get_default(name):
            p.error(f'--{name} needs a message to answer: add one, as in "Hi" --{name} ...')
    return args


def main() -> None:
    args = arguments()
    if args.write_docs:
        report.write_docs(DOCS / "results.md", DOCS / "figures", args.write_docs)
    elif args.messages:
        answer(args)
    elif args.all:
        run_all(args)
    else:
        show_drift(args)


# Replies to the user's messages


def answer(args: argparse.Namespace) -> None:
    """Answer the messages under each intervention, and print the replies with projections."""
    model, tokenizer = mx.load(args.model, args.dtype, args.device, download=args.download)
    axis = mx.Axis.load(axis_path(args))
    axis.check(model)
    count = model.config.num_hidden_layers
    layers = check_layers(args.layers or default_layers(count), count)
    interventions: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "baseline": nullcontext,
        "capped": lambda: mx.capping(model, axis, layers=layers, percentile=args.percentile),
    }
    if args.steer is not None:
        interventions["steered"] = lambda: mx.steering(model, axis, args.steer)
    layer = max(layers)  # where the last cap acts
    low, high, floor = (axis.thresholds(p)[layer].item() for p in (2, 98, args.percentile))
    print(
        f"The cap acts at layers {layers[0]} to {layers[-1]}. Projections are those at layer "
        f"{layer}, where the floor is {floor:.1f}."
    )
    answers = []
    for reply in answer_messages(
        model, tokenizer, axis, args.messages, interventions, layer=layer, system=args.system,
        sampling=mx.SamplingParams(
            max_new_tokens=args.tokens, temperature=args.temperature, top_p=args.top_p,
            seed=args.seed,
        ),
    ):  # fmt: skip
        if reply.intervention == "baseline":
            print(f"\n> {reply.message}")
        print_answer(reply, tokenizer, low, high)
        answers.append(
            {
                "message": reply.message,
                "intervention": reply.intervention,
                "answer": reply.text,
                "projection": reply.projection,
            }
        )
    if args.out:
        write_json(args.out, {"settings": cli.settings(args), "turns": answers})


def axis_path(args: argparse.Namespace) -> Path:
    """The axis file to use: --axis, or the one that belongs to the model."""
    if args.axis is None and cli.is_tiny(args):
        return find(args.model).with_name("tiny-axis.pt")  # train_tiny.py writes it there
    path = args.axis or cli.out(args) / "axis.pt"
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file; make it with: python fit_axis.py --model {args.model}"
        )
    return path


def print_answer(reply: Answer, tokenizer: AnyTokenizer, low: float, high: float) -> None:
    """Print a reply with colours from `low` to `high`, or with bars if this is no terminal."""
    if reply.projection is None:
        print(f"\n{reply.intervention:8s} (empty reply)")
        return
    head = f"\n{reply.intervention:8s} {reply.projection:7.1f}"
    if sys.stdout.isatty():
        print(f"{head}\n{coloured(tokenizer, reply.ids, reply.projections, low, high)}")
    else:
        print(f"{head}  {bars(reply.projections, low, high)}\n{reply.text}")


# The tiny model's drift


def show_drift(args: argparse.Namespace) -> None:
    """Print a conversation of the tiny model that drifts, and rates under each intervention."""
    model, tokenizer, world = load_tiny(args)
    axis, rollouts = fit_tiny_axis(model, tokenizer, world, args.seed, samples=1)
    lab = TinyLab(model=model, tokenizer=tokenizer, world=world, axis=axis, seed=args.seed)
    lab = with_random_axes(lab, rollouts, count=1)
    print_conversation(drifting_conversation(lab), axis)
    print_rates(demo_rates(lab))
    print("\nAll experiments, with intervals and controls: --all")


def load_tiny(args: argparse.Namespace) -> tuple[mx.Transformer, AnyTokenizer, World]:
    """The model of the tiny world, its tokenizer and the world."""
    if not cli.is_tiny(args):
        raise ValueError(
            f"without messages, cap_demo.py shows how the tiny model drifts: give {args.model} a "
            "message to answer, or pass --all"
        )
    torch.set_num_threads(1)  # its matrices are so small that two threads would mostly wait
    return *mx.load(args.model, args.dtype, args.device, download=args.download), World()


def print_conversation(conversation: DriftingConversation, axis: mx.Axis) -> None:
    """Print the baseline and the capped conversation in two columns."""
    layer, count = conversation.layer, conversation.count
    floor, low, high = (axis.thresholds(p)[layer].item() for p in (CAP_PERCENTILE, 0, 100))
    width = min(shutil.get_terminal_size((100, 24)).columns, 120) // 2 - 2

    def column(reply: Reply) -> list[str]:
        scale = gauge(reply.projection, floor, low, high)
        head = f"{reply.projection:6.1f} {scale} {reply.speaker or 'nobody in particular'}"
        return [head, *textwrap.wrap(reply.text, width)]

    print(
        f"\nOf {count} conversations, this one starts as the Assistant and drifts furthest without "
        "a cap.\nNo persona is requested. A dot shows the projection of a reply on the axis, with "
        "the Assistant to\nthe right. A bar shows the floor of the cap.\n"
    )
    print(f"{'BASELINE':{width + 3}s}CAPPED")
    for message, *replies in zip(
        conversation.messages, conversation.baseline, conversation.capped, strict=True
    ):
        print(f"\n> {message}")
        for left, right in zip_longest(*map(column, replies), fillvalue=""):
            print(f"{left:{width + 3}s}{right}")
    baseline, capped = conversation.baseline_style, conversation.capped_style
    print(
        f"\nAssistant-style replies, first and last turn ({count} conversations):\n"
        f"  baseline {baseline[0]:.0%} and {baseline[-1]:.0%}, "
        f"capped {capped[0]:.0%} and {capped[-1]:.0%}"
    )


def print_rates(rates: Compared[dict[str, float]]) -> None:
    """Print a table with one row for each rate."""
    print(f"\n{'Rate':50s}baseline  capped  random direction")
    for label, baseline in rates.baseline.items():
        (random,) = rates.random
        print(f"{label:50s}{baseline:8.2f}{rates.capped[label]:8.2f}{random[label]:18.2f}")


# Every experiment


def run_all(args: argparse.Namespace) -> None:
    """Run all experiments, write results, figures and report, and print the table of claims."""
    from minaxis.paper.figures import draw, load_pyplot

    load_pyplot()  # if matplotlib is missing, say so before minutes of work
    started = time.monotonic()
    if cli.is_tiny(args):
        kind, folder, experiments = "tiny", Path("out/report"), tiny_experiments(args)
    else:
        kind, folder, experiments = "open", cli.out(args) / "report", open_experiments(args)
    folder = args.out or folder
    run = report.write_run(
        folder, kind, experiments,
        settings=cli.settings(args), seconds=time.monotonic() - started,
    )  # fmt: skip
    report.write_html(folder / "report.html", run, draw(experiments, folder))
    print(f"\n{report.table([run])}\nwritten: {folder}/report.html, results.json and figures")


def tiny_experiments(args: argparse.Namespace) -> list[Experiment]:
    """Run all experiments on a model of the tiny world."""
    model, tokenizer, world = load_tiny(args)
    base, _ = mx.load(find(args.model).with_name("tiny-base.pt"), args.dtype, args.device)
    return tiny.run_experiments(
        model, base, tokenizer, world, seed=args.seed, scale=args.scale
    )  # fmt: skip


def open_experiments(args: argparse.Namespace) -> list[Experiment]:
    """Run all experiments that apply to an open model, with the axis that fit_axis.py wrote."""
    model, tokenizer = mx.load(args.model, args.dtype, args.device, download=args.download)
    path = axis_path(args)
    axis = mx.Axis.load(path)
    axis.check(model)
    rollouts = path.parent / "rollouts"
    return open_model.run_experiments(
        model, tokenizer, axis, mx.Rollouts(read_json(rollouts / "settings.json"), rollouts),
        seed=args.seed,
    )  # fmt: skip


if __name__ == "__main__":
    cli.run(main)
