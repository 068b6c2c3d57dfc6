"""From drift to cap: watch the projection on the Assistant Axis while a model answers.

    python cap_demo.py                                   # 10 s: drift, harm after it, and a cap
    python cap_demo.py --all                             # 2 minutes: the paper in miniature
    torchrun --nproc-per-node 2 cap_demo.py --all        # the same, shared by two processes
    python cap_demo.py --model smollm2 --dtype bfloat16 --all    # 20 to 40 min, after fit_axis.py
    python cap_demo.py --model smollm2 "Who are you?"    # 15 s, after fit_axis.py
    python cap_demo.py --model smollm2 --steer -0.5 "Who are you?" "And what do you fear?"
    python cap_demo.py --page play.html                  # a page to play with, the model inside
    python cap_demo.py --web [--model smollm2]           # the same page, for any model
    python cap_demo.py --chat                            # the same in a terminal
    python cap_demo.py --transcript chat.json            # place the turns of a conversation

Without messages, a user speaks with the tiny model about feelings, or about what it is, and then
asks a forbidden question. One such conversation is printed with and without a cap. Two tables say
how often the secret leaks after personal turns, and what the cap costs. The control is a cap along
a random direction. --all runs every experiment of minaxis/paper/ and writes figures, results.json
and report.html.

With messages, each is one turn of a conversation. The baseline, the capped and the steered model
have a conversation each. The number is the mean projection of a reply on the unit axis, which
points toward the Assistant. It is read while the model answers, so an intervention moves it by
construction. The bars are the reply's tokens; on a terminal, colours show them.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

if __name__ == "__main__":  # an interrupt ends the imports, which take seconds, without a word
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import torch

import minaxis as mx
from minaxis.activation_cap import default_layers
from minaxis.distributed import ranks
from minaxis.hooks import check_layers
from minaxis.loading.exports import write_control_vector, write_recipe
from minaxis.loading.models import find
from minaxis.loading.reference import write_published
from minaxis.loading.transcripts import read_transcript
from minaxis.paper import open_model, report, tiny
from minaxis.paper.branches import run_personal_conversations
from minaxis.paper.claims import Experiment
from minaxis.paper.controls import with_random_axes
from minaxis.paper.demo import (
    Answer,
    answer_messages,
    cost_rows,
    harm_rows,
    print_rows,
    print_story,
    tell_story,
)
from minaxis.paper.lab import Lab
from minaxis.paper.transcripts import draw, place
from minaxis.support import arguments as cli
from minaxis.support.files import write_json
from minaxis.support.meter import bars, coloured
from minaxis.tiny.lab import TinyLab
from minaxis.tiny.questions import fit_tiny_axis
from minaxis.tiny.world import World
from minaxis.tokenizer import AnyTokenizer
from minaxis.web.answers import Engine
from minaxis.web.chat import chat
from minaxis.web.export import write_page
from minaxis.web.server import serve

DOCS = Path(__file__).parent / "docs"


def arguments() -> argparse.Namespace:
    p = cli.parser(__doc__)
    add = p.add_argument
    add("messages", nargs="*", help="the user's messages, one for each turn")
    add("--all", action="store_true", help="run every experiment, and write figures and a report")
    add(
        "--scale",
        type=cli.number(float, 0.001, 1000),
        default=1.0,
        help="with --all: factor on the numbers of questions",
    )
    add("--write-docs", type=Path, nargs="+", metavar="FOLDER",
        help="put the results of --all in these folders into docs/")  # fmt: skip
    add("--page", type=Path, metavar="FILE.html",
        help="write a page to play with, as one file that has the tiny model inside")  # fmt: skip
    add("--web", nargs="?", const="127.0.0.1:8642", metavar="HOST:PORT",
        help="serve this page for any model, to this machine unless HOST is another")  # fmt: skip
    add("--chat", action="store_true", help="the same conversation in the terminal")
    add("--transcript", type=Path, nargs="+", metavar="FILE.json",
        help="read conversations, and print and plot the projection of each turn")  # fmt: skip
    add("--export", type=Path, metavar="FOLDER",
        help="write axis, cap and responses in the forms of the paper's repository, and for "
             "programs without minaxis")  # fmt: skip
    add("--axis", type=Path,
        help="axis file (default: out/MODEL/axis.pt; tiny: the one beside the model)")  # fmt: skip
    add("--system", default="", help="system prompt, for example a role")
    add(
        "--layers",
        type=layer_number,
        nargs="+",
        help="layers to cap (default: 70 to 90 %% of the depth)",
    )
    add("--percentile", type=cli.number(float, 0, 100),
        help="percentile of the calibration projections at which the floor is set (default: the "
             "paper's 75; for the tiny model, the one of docs/protocol.md)")  # fmt: skip
    add("--steer", type=cli.number(float, -1000, 1000), metavar="COEFFICIENT",
        help="also steer, by this many mean residual norms toward the Assistant")  # fmt: skip
    add(
        "--tokens",
        type=cli.number(int, 1, 10**9),
        default=64,
        help="maximum number of tokens in a reply",
    )
    add("--out", type=Path,
        help="JSON file for the replies; with --transcript, for the projections (default: "
             "out/MODEL/transcripts.json); with --all, a folder (default: out/report, or "
             "out/MODEL/report for an open model)")  # fmt: skip
    args = p.parse_args()
    experiments = "scale seed out" if cli.is_tiny(args) else "axis seed out"
    uses = {  # what each task looks at, beside the model
        "messages": "axis system layers percentile steer tokens temperature top_p seed out",
        "chat": "axis layers percentile tokens temperature top_p seed",
        "web": "axis layers percentile tokens",
        "transcript": "axis layers out",
        "export": "axis layers percentile",
        "all": experiments, "page": "axis", "write_docs": "", "": "seed",
    }  # fmt: skip
    cli.check_effect(p, args, uses)
    if args.percentile and args.percentile % 1 and (args.web or args.chat):
        p.error(f"--web and --chat take whole percentiles, got {args.percentile}")
    if args.scale != 1 and not cli.is_tiny(args):
        p.error("--scale is for the tiny model's experiments: those of open models have one size")
    if args.page and not cli.is_tiny(args):
        p.error("--page can only hold a model of the tiny world: serve others with --web")
    return args


def layer_number(text: str) -> int:
    """A layer, as a `type` for argparse."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'expected a layer number, got {text!r}. Messages come first, as in "Hi" --layers 2 3'
        ) from None


def main() -> None:
    args = arguments()
    if ranks.count() > 1 and not args.all:
        raise ValueError("only --all runs over ranks: use python, not torchrun")
    if args.write_docs:
        report.write_docs(DOCS / "results.md", DOCS / "figures", args.write_docs)
    elif args.page:
        model, tokenizer, world = load_tiny(args)
        write_page(args.page, model, tokenizer, mx.Axis.load(axis_path(args)), world)
        print(f"written: {args.page}; open it in a browser")
    elif args.web:
        serve(make_engine(args), args.web)
    elif args.chat:
        chat(make_engine(args), sampling(args))
    elif args.export:
        export(args)
    elif args.transcript:
        place_transcripts(args)
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
    layers = sorted(set(check_layers(args.layers or default_layers(count), count)))
    percentile = floor_percentile(args)
    interventions: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "baseline": nullcontext,
        "capped": lambda: mx.capping(model, axis, layers=layers, percentile=percentile),
    }
    if args.steer is not None:
        interventions["steered"] = lambda: mx.steering(model, axis, args.steer)
    if args.out:
        if args.out.is_dir():
            raise ValueError(f"--out is a file for the replies, and {args.out} is a folder")
        cli.check_writable(args.out.parent)
    layer = max(layers)  # where the last cap acts
    low, high, floor = (axis.thresholds(p)[layer].item() for p in (2, 98, percentile))
    print(
        f"The cap acts at layers {layers[0]} to {layers[-1]}. Projections are those at layer "
        f"{layer}, where the floor is {floor:.1f}.\nThey are read while the model answers, so the "
        "cap and steering move them by construction."
    )
    answers = []
    for reply in answer_messages(
        model, tokenizer, axis, args.messages, interventions, layer=layer, system=args.system,
        sampling=sampling(args),
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


def sampling(args: argparse.Namespace) -> mx.SamplingParams:
    """How replies are sampled."""
    return mx.SamplingParams(
        max_new_tokens=args.tokens, temperature=args.temperature, top_p=args.top_p, seed=args.seed
    )


def floor_percentile(args: argparse.Namespace) -> float:
    """The percentile of the floor: --percentile, or the one for this kind of model."""
    if args.percentile is not None:
        return args.percentile
    return (TinyLab if cli.is_tiny(args) else Lab).percentile


def make_engine(args: argparse.Namespace) -> Engine:
    """What answers on the served page and in the terminal."""
    world = None
    if cli.is_tiny(args):
        model, tokenizer, world = load_tiny(args)
    else:
        model, tokenizer = mx.load(args.model, args.dtype, args.device, download=args.download)
    count = model.config.num_hidden_layers
    return Engine(
        model, tokenizer, mx.Axis.load(axis_path(args)), world,
        layers=check_layers(args.layers or default_layers(count), count),
        percentile=floor_percentile(args), max_tokens=args.tokens,
    )  # fmt: skip


def axis_path(args: argparse.Namespace) -> Path:
    """The axis file to use: --axis, or the one that belongs to the model."""
    if args.axis is None and cli.is_tiny(args):
        return find(args.model).with_name("tiny-axis.pt")  # train_tiny.py writes it there
    path = args.axis or cli.out(args) / "axis.pt"
    if not path.exists():
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


# Conversations from files


def place_transcripts(args: argparse.Namespace) -> None:
    """Print, plot and write the projection of each turn of the conversations in files."""
    transcripts = [read_transcript(path) for path in args.transcript]
    model, tokenizer = mx.load(args.model, args.dtype, args.device, download=args.download)
    axis, count = mx.Axis.load(axis_path(args)), model.config.num_hidden_layers
    layer = max(check_layers(args.layers or default_layers(count), count))
    out = args.out or cli.out(args) / "transcripts.json"
    cli.check_writable(out.parent)
    placed = place(model, tokenizer, axis, transcripts, layer)
    settings = cli.settings(args) | {"transcript": [str(path) for path in args.transcript]}
    write_json(out, {"settings": settings, "layer": layer, "transcripts": placed})
    print(f"written: {out}", end="")
    try:
        draw(placed, layer, out.with_suffix(".png"))
        print(f" and {out.with_suffix('.png')}")
    except ImportError as e:
        print(f"; no figure: {e}")


# Files for other programs


def export(args: argparse.Namespace) -> None:
    """Write the axis and its cap for the paper's code, llama.cpp and programs without minaxis."""
    path, folder = axis_path(args), args.export
    axis, percentile = mx.Axis.load(path), floor_percentile(args)
    layers = sorted(set(args.layers or default_layers(len(axis.vectors))))
    rollouts = None
    if (path.parent / "rollouts").is_dir():
        try:
            rollouts = load_rollouts(path, axis)
        except ValueError as e:
            print(f"no responses are written: {e}")
    name = write_published(folder, axis, layers=layers, percentile=percentile, rollouts=rollouts)
    print(f"{folder}: the published forms; the experiment in capping_config.pt is {name}")
    write_recipe(folder / "cap.json", axis, layers=layers, percentile=percentile)
    print(f"{folder}/cap.json: vector and floor of layers {layers[0]} to {layers[-1]}")
    write_control_vector(folder / "control-vector.gguf", axis)
    print(f"{folder}/control-vector.gguf: steering for llama.cpp, layer {len(axis.vectors) // 2}")


# The tiny model's drift


def show_drift(args: argparse.Namespace) -> None:
    """Print a conversation of the tiny model that drifts, the harm after drift, and the costs."""
    model, tokenizer, world = load_tiny(args)
    axis, rollouts = fit_tiny_axis(model, tokenizer, world, args.seed, samples=1)
    lab = TinyLab(model=model, tokenizer=tokenizer, world=world, axis=axis, seed=args.seed)
    lab = with_random_axes(lab, rollouts, count=1)
    runs = lab.compare(lambda: run_personal_conversations(lab, each=10), random_axes=1)
    print_story(lab, tell_story(lab, runs.baseline, runs.capped))
    print_rows("HARM AFTER DRIFT, with 95 % intervals", harm_rows(runs), heads=True)
    print_rows("WHAT THE CAP COSTS, and requested personas", cost_rows(lab))
    print(
        "\nThe control is a cap along one random direction that pushes the activations as hard.\n"
        "All experiments, with more replies and more random directions: --all"
    )


def load_tiny(args: argparse.Namespace) -> tuple[mx.Transformer, AnyTokenizer, World]:
    """The model of the tiny world, its tokenizer and the world."""
    if not cli.is_tiny(args):
        raise ValueError(
            f"without messages, cap_demo.py shows how the tiny model drifts: give {args.model} a "
            "message to answer, or pass --all"
        )
    torch.set_num_threads(1)  # its matrices are so small that two threads would mostly wait
    return *mx.load(args.model, args.dtype, args.device, download=args.download), World()


# Every experiment


def run_all(args: argparse.Namespace) -> None:
    """Run all experiments, write results, figures and report, and print the table of claims."""
    from minaxis.paper.figures import draw, load_pyplot

    load_pyplot()  # if matplotlib is missing, say so before minutes of work
    started = time.monotonic()
    kind = "tiny" if cli.is_tiny(args) else "open"
    folder = args.out or (Path("out") if kind == "tiny" else cli.out(args)) / "report"
    cli.check_writable(folder)
    experiments = tiny_experiments(args) if kind == "tiny" else open_experiments(args)
    if ranks.rank():
        return  # rank 0 writes
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
    rollouts = load_rollouts(path, axis)
    return open_model.run_experiments(model, tokenizer, axis, rollouts, seed=args.seed)


def load_rollouts(path: Path, axis: mx.Axis) -> mx.Rollouts:
    """The rollouts beside an axis file, or a ValueError if the axis was fitted on others."""
    rollouts = mx.Rollouts.load(path.parent / "rollouts")
    if differ := [k for k, value in rollouts.meta.items() if axis.meta.get(k) != value]:
        raise ValueError(
            f"{rollouts.folder} is of another run than {path}: they differ in {', '.join(differ)}; "
            "fit the axis again, or move one of them away"
        )
    return rollouts


if __name__ == "__main__":
    cli.run(main, over_ranks=True)
