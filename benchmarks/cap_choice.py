"""Where, how high and at which tokens to cap, and along which direction: the grid and the choice.

    python benchmarks/cap_choice.py            # 5 minutes a model on one core

Measures every cap of minaxis/paper/cap_choice.py on the development models, which
`benchmarks/tiny_world.py` trains, and prints the cap that the rule of docs/protocol.md chooses.

Writes to out/cap-choice/: one JSON file for each model. A model that has one is not measured again.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

import torch

import minaxis as mx
from minaxis.paper.cap_choice import Cap, Outcome, choose, grid, measure_caps
from minaxis.support import arguments as cli
from minaxis.support.files import read_json, write_json
from minaxis.support.stats import Rate
from minaxis.tiny.lab import TinyLab
from minaxis.tiny.questions import fit_tiny_axis
from minaxis.tiny.world import World


def arguments() -> argparse.Namespace:
    p = cli.bare_parser(__doc__)
    add = p.add_argument
    add(
        "--models", type=Path, default=Path("out/tiny-world"), help="folder with seed-0, seed-1 ..."
    )
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of the models")
    add("--each", type=int, default=24, help="number of conversations on each personal subject")
    add("--out", type=Path, default=Path("out/cap-choice"), help="output folder")
    return p.parse_args()


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)  # the matrices are so small that two threads would mostly wait
    runs = []
    for seed in args.seeds:
        file = args.out / f"seed-{seed}.json"
        if not file.is_file():
            outcomes = measure(args.models / f"seed-{seed}" / "tiny.pt", seed, args)
            write_json(file, [asdict(outcome) for outcome in outcomes])
        baseline, *outcomes = map(outcome_from_json, read_json(file))
        runs.append((baseline, outcomes))
    caps = grid(mx.load(args.models / f"seed-{seed}" / "tiny.pt")[0].config.num_hidden_layers)

    print(f"Means over seeds {args.seeds}; in brackets each seed.\n")
    print(f"{'layers':9s}{'floor':16s}{'tokens':18s}{'along':6s}{'harm':25s}{'Assistant':25s}"
          f"{'personas leak':15s}{'accuracy':10s}role-play kept")  # fmt: skip
    print_row(None, [baseline for baseline, _ in runs], [baseline for baseline, _ in runs])
    for i, cap in enumerate(caps):
        print_row(cap, [baseline for baseline, _ in runs], [outcomes[i] for _, outcomes in runs])
    print(f"\nThe rule chooses: {choose(caps, runs)}")


def measure(path: Path, seed: int, args: argparse.Namespace) -> list[Outcome]:
    """The outcome without a cap, and those of the grid, of one model."""
    # The plain model reads a prompt in one pass, as caps of single tokens need it.
    model, tokenizer = mx.load(path, device=args.device, fast=False)
    world = World()
    axis, rollouts = fit_tiny_axis(model, tokenizer, world, seed)
    lab = TinyLab(model=model, tokenizer=tokenizer, world=world, axis=axis, seed=seed)
    caps = grid(len(axis.vectors))
    return measure_caps(lab, rollouts, [None, *caps], each=args.each)


def outcome_from_json(data: dict[str, dict]) -> Outcome:
    return Outcome(**{name: Rate(**value) for name, value in data.items()})


def print_row(cap: Cap | None, baselines: list[Outcome], outcomes: list[Outcome]) -> None:
    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    def each(values: list[float]) -> str:
        return f"{mean(values):.2f} ({' '.join(f'{v:.2f}' for v in values)})"

    layers = f"{cap.layers[0]} to {cap.layers[-1]}" if cap else "no cap"
    floor, tokens, along = (cap.floor, cap.tokens, cap.direction) if cap else ("", "", "")
    pairs = list(zip(baselines, outcomes, strict=True))
    accuracy = mean([b.accuracy.rate - a.accuracy.rate for a, b in pairs])
    role_play = mean([b.role_play.rate / a.role_play.rate for a, b in pairs])
    harm = each([outcome.harm.rate for outcome in outcomes])
    assistant = each([outcome.assistant.rate for outcome in outcomes])
    personas = mean([outcome.persona_leaks.rate for outcome in outcomes])
    print(
        f"{layers:9s}{floor!s:16s}{tokens:18s}{along:6s}{harm:25s}{assistant:25s}"
        f"{personas:<15.2f}{accuracy:<+10.2f}{role_play:.2f}"
    )


if __name__ == "__main__":
    cli.run(main)
