"""Where, how high and at which tokens to cap, and along which direction: the grid and the choice.

    python benchmarks/cap_choice.py            # 3 minutes a model on one core

Measures every cap of minaxis/paper/cap_choice.py on the development models, which
`benchmarks/tiny_world.py` trains, and prints the cap that the rule of docs/protocol.md chooses.

Writes to out/cap-choice/: one JSON file for each model, and cap-choice.png. A model that has a file
is not measured again. The figure needs the extra `plot`.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import minaxis as mx
from minaxis.paper.cap_choice import (
    ALL,
    ANSWER_START,
    AXIS,
    DEFAULT_MEAN,
    GENERATED,
    PC1,
    Cap,
    Outcome,
    choose,
    grid,
    measure_caps,
)
from minaxis.paper.figures import BLUE, GOLD, GREEN, INK, ORANGE, PURPLE, STYLE, load_pyplot
from minaxis.support import arguments as cli
from minaxis.support.files import read_json, write_json
from minaxis.support.stats import Rate
from minaxis.tiny.lab import TinyLab
from minaxis.tiny.questions import fit_tiny_axis
from minaxis.tiny.world import World

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Run = tuple[Outcome, list[Outcome]]  # of one model: without a cap, and under each cap of the grid
MARKERS = {(GENERATED, AXIS): "s", (ANSWER_START, AXIS): "^", (ALL, PC1): "x"}  # others have dots


def arguments() -> argparse.Namespace:
    p = cli.bare_parser(__doc__)
    add = p.add_argument
    add(
        "--models", type=Path, default=Path("out/tiny-world"), help="folder with seed-0, seed-1 ..."
    )
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of the models")
    add("--each", type=int, default=16, help="number of conversations on each personal subject")
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
    baselines = [baseline for baseline, _ in runs]
    print_row(None, baselines, baselines)
    for i, cap in enumerate(caps):
        print_row(cap, baselines, [outcomes[i] for _, outcomes in runs])
    chosen = choose(caps, runs)
    print(f"\nThe rule chooses: {chosen}")
    draw(caps, runs, chosen, args.out / "cap-choice.png")


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


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def costs(baselines: Sequence[Outcome], outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """The change of the accuracy, and the share of role-play that is kept: means over models."""
    pairs = list(zip(baselines, outcomes, strict=True))
    return (
        mean([capped.accuracy.rate - baseline.accuracy.rate for baseline, capped in pairs]),
        mean([capped.role_play.rate / baseline.role_play.rate for baseline, capped in pairs]),
    )


def layer_range(cap: Cap) -> str:
    return f"{cap.layers[0]} to {cap.layers[-1]}"


def print_row(cap: Cap | None, baselines: Sequence[Outcome], outcomes: Sequence[Outcome]) -> None:
    def each(values: list[float]) -> str:
        return f"{mean(values):.2f} ({' '.join(f'{v:.2f}' for v in values)})"

    layers = layer_range(cap) if cap else "no cap"
    floor, tokens, along = (cap.floor, cap.tokens, cap.direction) if cap else ("", "", "")
    accuracy, role_play = costs(baselines, outcomes)
    harm = each([outcome.harm.rate for outcome in outcomes])
    assistant = each([outcome.assistant.rate for outcome in outcomes])
    personas = mean([outcome.persona_leaks.rate for outcome in outcomes])
    print(
        f"{layers:9s}{floor!s:16s}{tokens:18s}{along:6s}{harm:25s}{assistant:25s}"
        f"{personas:<15.2f}{accuracy:<+10.2f}{role_play:.2f}"
    )


def draw(caps: Sequence[Cap], runs: Sequence[Run], chosen: Cap, path: Path) -> None:
    """Draw the harm that each cap leaves over what it costs, means over the models."""
    pyplot, baselines = load_pyplot(), [baseline for baseline, _ in runs]
    by_cap = [[outcomes[i] for _, outcomes in runs] for i in range(len(caps))]
    found = {
        cap: (mean([o.harm.rate for o in outcomes]), *costs(baselines, outcomes))
        for cap, outcomes in zip(caps, by_cap, strict=True)
    }
    no_cap = mean([baseline.harm.rate for baseline in baselines])
    with pyplot.rc_context(STYLE):
        figure, panels = pyplot.subplots(1, 2, figsize=(10, 4.4), sharey=True, layout="constrained")
        panels[0].set_ylabel("harm after drift (leak rate)")
        for ax, cost, label in zip(
            panels, (1, 2), ("accuracy, change", "role-play kept"), strict=True
        ):
            ax.set_xlabel(label)
            ax.axhline(no_cap, color=INK, linestyle=":", linewidth=1, label="no cap")
            draw_caps(ax, {cap: (values[cost], values[0]) for cap, values in found.items()}, chosen)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
        figure.savefig(path, dpi=160)
    print(f"Wrote {path}")


def draw_caps(ax: "Axes", at: dict[Cap, tuple[float, float]], chosen: Cap) -> None:
    """Draw a line for each range of layers, and a mark for each cap of other tokens or of PC1."""
    ranges = dict.fromkeys(cap.layers for cap in at)
    colours = dict(zip(ranges, (BLUE, ORANGE, GREEN, PURPLE), strict=True))
    for layers, colour in colours.items():
        line = [cap for cap in at if (cap.layers, cap.tokens, cap.direction) == (layers, ALL, AXIS)]
        x, y = zip(*(at[cap] for cap in line), strict=True)
        ax.plot(x, y, "o-", color=colour, markersize=4, label=f"layers {layer_range(line[0])}")
        for cap in line:
            text = "mean" if cap.floor == DEFAULT_MEAN else str(cap.floor)
            ax.annotate(
                text, at[cap], xytext=(3, 3), textcoords="offset points", fontsize=7, color=colour
            )
    for (tokens, direction), marker in MARKERS.items():
        others = [cap for cap in at if (cap.tokens, cap.direction) == (tokens, direction)]
        x, y = zip(*(at[cap] for cap in others), strict=True)
        ax.scatter(x, y, 30, [colours[cap.layers] for cap in others], marker=marker)
        ax.plot([], [], marker, color=INK, linestyle="", label=tokens if direction == AXIS else PC1)
    ax.plot(*at[chosen], "o", color=GOLD, markersize=13, fillstyle="none", label="chosen")


if __name__ == "__main__":
    cli.run(main)
