"""Post-training as prevention: which lessons keep the Assistant from drifting?

    python benchmarks/lessons.py               # 7 minutes on one core

Post-trains one base model several times. The lessons differ in one thing: how many questions about
advice, feelings and itself the Assistant answers in a row. Longer lessons also have more such
replies. So one model has lessons of one question, but as many of these replies as with four. One
more model has the usual lessons, but a cap is on while it learns. It caps along the axis of the
first model. All models are measured without a cap.

Writes to out/lessons/: a checkpoint of each model, lessons.json and lessons.png. A model that has a
checkpoint is not trained again. The figure needs the extra `plot`.
"""

import argparse
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch

import minaxis as mx
from minaxis.paper.branches import BRANCHES, LAST, PERSONAL
from minaxis.paper.figures import (
    BLUE,
    GOLD,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    STYLE,
    from_zero_to_one,
    load_pyplot,
    with_intervals,
)
from minaxis.support import arguments as cli
from minaxis.support.files import write_json
from minaxis.support.progress import Progress
from minaxis.support.stats import Rate, rate
from minaxis.tiny.checkpoint import read_info, save_checkpoint
from minaxis.tiny.lab import TinyLab, joined
from minaxis.tiny.phases import make_phases
from minaxis.tiny.questions import TASKS, fit_tiny_axis, tasks
from minaxis.tiny.training import make_optimisers, training_steps
from minaxis.tiny.world import ASSISTANT, World


@dataclass(frozen=True)
class Lessons:
    """Lessons of post-training."""

    name: str
    turns: int = 1  # questions in a row about advice, feelings and the Assistant itself
    replies_of: int = 0  # if not 0: as many replies to these as with this number of turns
    capped: bool = False  # is a cap on during post-training?

    def world(self) -> World:
        """The tiny world with these lessons."""
        world = World()
        mix = world.lesson_mix
        if self.replies_of:  # the other lessons of the Assistant become rarer
            talk = self.replies_of * mix["talk"]
            mix["talk"] = talk / (talk + 1 - mix["talk"])
        mix["talk turns"] = self.turns
        return world


LESSONS = [
    *(Lessons(f"{turns} in a row", turns) for turns in (1, 2, 3, 4)),
    Lessons("1, as many as with 4", replies_of=4),
    Lessons("1 in a row, capped", capped=True),
]
TRAINED_WITH = ("base", "post_tokens", "seed")  # arguments on which the checkpoints depend
COLOURS = (BLUE, GREEN, GOLD, ORANGE, GREY, PURPLE)


@dataclass(frozen=True)
class Result:
    """What a model does after these lessons, without a cap."""

    leaked: dict[int, Rate]  # personal turns before -> leak rate
    assistant: list[Rate]  # by personal turn: replies in which the Assistant speaks
    accuracy: Rate  # on held-out tasks


def arguments() -> argparse.Namespace:
    p = cli.bare_parser(__doc__)
    add = p.add_argument
    add("--base", default="tiny-base", help="pre-trained model: tiny-base or a .pt file")
    add("--post-tokens", type=float, default=0.4e6, help="tokens of lessons and replayed stories")
    add("--each", type=int, default=96, help="number of conversations on each personal subject")
    add("--out", type=Path, default=Path("out/lessons"), help="output folder")
    return p.parse_args()


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)  # the matrices are so small that two threads would mostly wait
    results: dict[str, Result] = {}
    axis = None
    for number, lessons in enumerate(LESSONS):
        path = args.out / f"lessons-{number}.pt"
        settings = {k: v for k, v in cli.settings(args).items() if k in TRAINED_WITH}
        info = settings | {"lessons": asdict(lessons)}
        if not path.is_file():
            train(path, lessons, axis, info, args)
        elif read_info(path) != info:
            raise ValueError(f"{path} was trained with other settings: choose another --out")
        model, tokenizer = mx.load(path, device=args.device)
        if axis is None:
            axis, _ = fit_tiny_axis(model, tokenizer, World(), args.seed)
        lab = TinyLab(model=model, tokenizer=tokenizer, world=World(), axis=axis, seed=args.seed)
        results[lessons.name] = measure(lab, args.each)
    write_json(args.out / "lessons.json", {name: asdict(r) for name, r in results.items()})
    print_table(results)
    draw(results, args.out / "lessons.png")


def train(
    path: Path,
    lessons: Lessons,
    axis: mx.Axis | None,
    info: dict[str, Any],
    args: argparse.Namespace,
) -> None:
    """Post-train the base model with these lessons, and write its checkpoint.

    Args:
        axis: along which the model is capped while it learns, if the lessons say so.
        info: what is stored with the model.
    """
    model, tokenizer = mx.load(args.base, device=args.device)
    assert isinstance(tokenizer, mx.Tokenizer)  # save_checkpoint writes no other
    *_, phase = make_phases(
        lessons.world(), tokenizer, pre_tokens=0, post_tokens=args.post_tokens,
        batch_tokens=1800, rng=Random(args.seed),
    )  # fmt: skip
    cap: AbstractContextManager[None] = nullcontext()
    if lessons.capped:
        assert axis is not None
        cap = TinyLab(model=model, tokenizer=tokenizer, world=World(), axis=axis).capped()
    optimisers = make_optimisers(model, muon_lr=phase.muon_lr, adam_lr=phase.adam_lr)
    progress = Progress(len(phase.batches), lessons.name, "batches")
    with cap:
        for _, loss in training_steps(model, optimisers, phase.batches):
            progress.advance(1, 1, note=f"  loss {loss:.3f}")
    save_checkpoint(path, model, tokenizer, info)


def measure(lab: TinyLab, each: int) -> Result:
    """Harm after drift, the Assistant's share and accuracy.

    Args:
        each: number of conversations on each personal subject, and of questions in each task.
    """
    conversations = lab.run_conversations(PERSONAL, each=each, turns=LAST)
    answers = lab.ask_parts(tasks(lab.world, Random(lab.seed), each))
    return Result(
        leaked={
            turns: rate(r.right for r in lab.ask_after(conversations, turns, ["forbidden"]))
            for turns in BRANCHES
        },
        assistant=[rate(r.speaker == ASSISTANT for r in turn) for turn in conversations.readings],
        accuracy=rate(r.right for r in joined(answers, TASKS)),
    )


def print_table(results: dict[str, Result]) -> None:
    def interval(r: Rate) -> str:
        return f"{r.rate:.2f} ({r.low:.2f} to {r.high:.2f})"

    headings = [f"leaked after {turns}" for turns in BRANCHES]
    headings += ["Assistant at turn 1", f"Assistant at turn {LAST}", "accuracy"]
    print("\n" + f"{'lessons':22s}" + "".join(f"{heading:22s}" for heading in headings))
    for name, result in results.items():
        rates = [*result.leaked.values(), result.assistant[0], result.assistant[-1]]
        rates.append(result.accuracy)
        print(f"{name:22s}" + "".join(f"{interval(r):22s}" for r in rates))


def draw(results: dict[str, Result], path: Path) -> None:
    """Draw leaks over the personal turns before, and the Assistant's share over these turns."""
    pyplot = load_pyplot()
    with pyplot.rc_context(STYLE):
        figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
        for i, ((name, result), colour) in enumerate(zip(results.items(), COLOURS, strict=True)):
            shift = 0.07 * (i - len(results) / 2)  # so that no interval hides another
            for ax, turns, rates in (
                (left, BRANCHES, list(result.leaked.values())),
                (right, range(1, LAST + 1), result.assistant),
            ):
                heights, errors = with_intervals(rates)
                at = [turn + shift for turn in turns]
                ax.errorbar(at, heights, errors, color=colour, marker="o", markersize=4, label=name)
        left.set_xlabel("personal turns before a forbidden question")
        right.set_xlabel("personal turn")
        left.set_xticks(BRANCHES)
        from_zero_to_one(left, "leak rate")
        from_zero_to_one(right, "replies of the Assistant")
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3,
                      title="personal questions in a lesson")  # fmt: skip
        figure.savefig(path, dpi=160)
    print(f"\nWrote {path}")


if __name__ == "__main__":
    cli.run(main)
