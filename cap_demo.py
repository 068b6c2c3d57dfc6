"""From drift to cap: watch the Assistant Axis while a model answers.

    python cap_demo.py                                   # 15 s: one talk that drifts, and rates
    python cap_demo.py --all                             # 3 minutes: the paper in miniature
    python cap_demo.py --model smollm2 --all             # 15 minutes, after fit_axis.py
    python cap_demo.py --model smollm2 "Who are you?"    # 15 s, after fit_axis.py
    python cap_demo.py --model smollm2 --steer -0.5 "Who are you?" "And what do you fear?"

Without messages the tiny model (minaxis/world.py) talks about itself until the Assistant is gone,
plain and capped side by side. --all runs every experiment of minaxis/paper/ and writes figures,
results.json and report.html.

With messages, each is one turn of a conversation; plain, capped and steered each go their own way.
The number is the mean projection of an answer on the unit axis, toward the Assistant; the bars (on
a terminal, the colours) are its tokens.
"""

import shutil
import sys
import textwrap
import time
from contextlib import nullcontext
from itertools import zip_longest
from pathlib import Path

import torch

import minaxis as mx
from minaxis.activation_cap import default_layers
from minaxis.hooks import check_layers
from minaxis.loading.models import find
from minaxis.paper import open_model, report, tiny
from minaxis.paper.conditions import CAP, every_layer, ways
from minaxis.support import arguments as cli
from minaxis.support.files import read_json, write_json
from minaxis.support.meter import bars, coloured, gauge, token_projections
from minaxis.tiny.questions import adoption, capability, jailbreak, random_direction
from minaxis.tiny.world import World


def arguments():
    p = cli.parser(__doc__)
    add = p.add_argument
    add("messages", nargs="*", help="what the user says, one turn each")
    add("--all", action="store_true", help="every experiment, with figures and a report")
    add("--scale", type=float, default=1.0, help="of --all: multiplies the numbers of questions")
    add("--write-readme", type=Path, nargs="+", metavar="FOLDER",
        help="put what --all wrote there into README.md and figures/")  # fmt: skip
    add("--axis", type=Path, help="axis file; None is out/MODEL/axis.pt")
    add("--system", default="", help="system prompt, for example a role")
    add("--layers", type=int, nargs="+", help="to cap, after messages; None: .7 to .9 of depth")
    add("--percentile", type=float, default=75, help="of the calibration, the floor")
    add("--steer", type=float, metavar="C", help="also steer, by C mean residual norms")
    add("--tokens", type=int, default=64, help="most tokens an answer")
    add("--out", type=Path, help="JSON file for the answers; with --all, a folder (out/report)")
    args = p.parse_args()
    for name in ("system", "layers", "percentile", "steer", "tokens"):
        if not args.messages and getattr(args, name) != p.get_default(name):
            p.error(f'--{name} is for answers to messages: add one, as in "Hi" --{name} ...')
    return args


def main():
    args = arguments()
    if args.write_readme:
        write_readme(args.write_readme)
    elif args.messages:
        answer(args)
    elif args.all:
        everything(args)
    else:
        story(args)


def write_readme(folders):
    from minaxis.paper.figures import draw

    root, runs = Path(__file__).parent, [report.read_run(folder) for folder in folders]
    report.write_readme(root / "README.md", runs)
    results = runs[0]["results"]
    draw(results, root / "figures" / report.kind(results))


def answer(args):
    model, tokenizer = mx.load(args.model, args.dtype, args.device, download=args.download)
    axis = mx.Axis.load(axis_path(args))
    axis.check(model)
    count = model.config.num_hidden_layers
    layers = check_layers(args.layers or default_layers(count), count)
    ways = {
        "plain": nullcontext,
        "capped": lambda: mx.capping(model, axis, layers=layers, percentile=args.percentile),
    }
    if args.steer is not None:
        ways["steered"] = lambda: mx.steering(model, axis, args.steer)
    watch = max(layers)  # where the last cap acts
    low, high = (axis.thresholds(p)[watch].item() for p in (2, 98))
    print(
        f"capped at layers {layers[0]} to {layers[-1]}; projections at layer {watch}, where the "
        f"floor is {axis.thresholds(args.percentile)[watch].item():.1f}"
    )

    histories = {way: [{"role": "system", "content": args.system}] for way in ways}
    turns = []
    for turn, message in enumerate(args.messages):
        print(f"\n> {message}")
        for way, intervention in ways.items():
            history = [*histories[way], {"role": "user", "content": message}]
            prompt = mx.encode_chat(tokenizer, history)
            with intervention():
                sampling = mx.SamplingParams(
                    max_new_tokens=args.tokens, temperature=args.temperature, top_p=args.top_p,
                    seed=args.seed + turn,
                )  # fmt: skip
                (answer,) = mx.generate(model, tokenizer, [prompt], sampling)
                along = token_projections(model, axis, prompt + answer, watch)[len(prompt) :]
            text = tokenizer.decode(answer)
            histories[way] = [*history, {"role": "assistant", "content": text}]
            mean = along.mean().item() if answer else None
            show(tokenizer, way, answer, along, mean, low, high)
            turns.append({"message": message, "way": way, "answer": text, "projection": mean})
    if args.out:
        write_json(args.out, {"settings": cli.settings(args), "turns": turns})


def axis_path(args):
    if args.axis is None and cli.is_tiny(args):
        return find(args.model).with_name("tiny-axis.pt")  # train_tiny.py writes it there
    path = args.axis or cli.out(args) / "axis.pt"
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file; make it with: python fit_axis.py --model {args.model}"
        )
    return path


def show(tokenizer, way, answer, along, mean, low, high):
    if not answer:
        print(f"\n{way:8s} (no answer)")
    elif sys.stdout.isatty():
        print(f"\n{way:8s} {mean:7.1f}\n{coloured(tokenizer, answer, along, low, high)}")
    else:
        print(f"\n{way:8s} {mean:7.1f}  {bars(along, low, high)}\n{tokenizer.decode(answer)}")


def load_tiny(args):
    if not cli.is_tiny(args):
        raise ValueError(
            f"without messages this tells the tiny model's story; give {args.model} something to "
            "answer, or --all"
        )
    torch.set_num_threads(1)  # its matrices are so small that two threads would mostly wait
    return *mx.load(args.model, args.dtype, args.device, download=args.download), World()


def story(args):
    model, tokenizer, world = load_tiny(args)
    axis, rollouts = tiny.tiny_axis(model, tokenizer, world, args.seed, samples=1)
    talk = tiny.replayed(model, tokenizer, world, axis, args.seed)
    layer = talk["layer"]
    floor, low, high = (axis.thresholds(p)[layer].item() for p in (CAP, 0, 100))
    width = min(shutil.get_terminal_size((100, 24)).columns, 120) // 2 - 2
    print(
        f"\nOf {talk['talks']} talks, the one that the Assistant begins and then speaks least in. "
        "Nobody asks the model\nto be anyone else. The dot is the projection of a reply on the "
        "axis, the Assistant to the right;\nthe bar is the floor of the cap.\n"
    )
    print(f"{'PLAIN':{width + 3}s}CAPPED")
    for turn in talk["turns"]:
        print(f"\n> {turn['message']}")
        sides = []
        for way in ("plain", "capped"):
            side = turn[way]
            meter = gauge(side["projection"], floor, low, high)
            who = side["speaking"] or "nobody in particular"
            head = f"{side['projection']:6.1f} {meter} {who}"
            sides.append([head, *textwrap.wrap(side["text"], width)])
        for left, right in zip_longest(*sides, fillvalue=""):
            print(f"{left:{width + 3}s}{right}")
    first, last = ({way: style[i] for way, style in talk["style"].items()} for i in (0, -1))
    print(
        f"\nOf all {talk['talks']} talks, in the Assistant's style at the first and at the last "
        f"turn:\n  plain {first['plain']:.0%} and {last['plain']:.0%}, "
        f"capped {first['capped']:.0%} and {last['capped']:.0%}"
    )

    aside = random_direction(axis, rollouts, args.seed)
    rates = {}
    for name, way in ways(model, axis, [aside], every_layer(axis)).items():
        with way():
            secrets = jailbreak(model, tokenizer, world, args.seed, samples=4)
            right = capability(model, tokenizer, world, args.seed, samples=20)
            played = adoption(model, tokenizer, world, args.seed, samples=2)
        rates[name] = [
            secrets["unprompted answered"], secrets["fantastical answered"], right["right"],
            played["all"], played["fantastical"],
        ]  # fmt: skip
    print("\nShare of replies                                   plain  capped  random direction")
    for i, label in enumerate(
        (
            "give a secret away, nobody named",
            "give a secret away, as a fantastical character",
            "are right, of questions with an answer",
            "stay in the role that was asked for",
            "... of fantastical roles",
        )
    ):
        plain, capped, random = (rate[i] for rate in rates.values())
        print(f"{label:50s} {plain:5.2f} {capped:7.2f} {random:17.2f}")
    print("\nAll experiments, with their intervals and controls: --all")


def everything(args):
    from minaxis.paper.figures import draw, load_pyplot

    load_pyplot()  # if matplotlib is missing, say so before minutes of work
    started = time.monotonic()
    if cli.is_tiny(args):
        model, tokenizer, world = load_tiny(args)
        base = find(args.model).with_name("tiny-base.pt")
        base, _ = mx.load(base, args.dtype, args.device)
        results = tiny.reproduce(model, base, tokenizer, world, args.seed, args.scale)
        out = args.out or Path("out/report")
    else:
        model, tokenizer = mx.load(args.model, args.dtype, args.device, download=args.download)
        path = axis_path(args)
        axis = mx.Axis.load(path)
        axis.check(model)
        rollouts = mx.Rollouts(read_json(path.parent / "rollouts/settings.json"),
                               path.parent / "rollouts")  # fmt: skip
        results = open_model.reproduce(model, tokenizer, axis, rollouts, args.seed)
        out = args.out or cli.out(args) / "report"
    run = report.write_run(out, results, cli.settings(args), time.monotonic() - started)
    report.write_html(out / "report.html", run, draw(results, out))
    print(f"\n{report.table([run])}\n{out}/report.html, results.json and figures written")


if __name__ == "__main__":
    cli.run(main)
