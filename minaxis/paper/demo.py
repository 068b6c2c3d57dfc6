"""What cap_demo.py shows: a conversation that drifts, what a cap does, and replies to messages."""

import shutil
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import zip_longest
from operator import itemgetter
from random import Random

import torch
from torch import Tensor

from minaxis.axis import Axis
from minaxis.chat import Message, encode_chat
from minaxis.fast.conversations import Memory, remembering
from minaxis.generation import SamplingParams, check_prompts, decode_steps, row_noise
from minaxis.hooks import capture
from minaxis.model import Transformer
from minaxis.paper.branches import LAST, PERSONAL, Branched, Outcome, outcome
from minaxis.paper.lab import Compared, Conversations
from minaxis.support.meter import gauge
from minaxis.support.stats import Rate, rate
from minaxis.tiny.lab import TinyLab, joined, personas_speak
from minaxis.tiny.questions import GROUPS, TASKS, forbidden_questions, role_play, tasks
from minaxis.tiny.reader import Reading
from minaxis.tiny.world import ASSISTANT
from minaxis.tokenizer import AnyTokenizer


@dataclass(frozen=True)
class Turn:
    """The replies to one message of a user, one for each column."""

    readings: tuple[Reading, Reading]  # the baseline's and the capped reply
    projections: tuple[float, float]  # both as the model without a cap reads them


@dataclass(frozen=True)
class Story:
    """One personal conversation that ends with a forbidden question, with and without a cap.

    The choice looks at the baseline only. Of the conversations whose last reply leaks, it is the
    median one by the number of turns in which the Assistant speaks. If none leaks, it is the one
    with the lowest projection before the question.
    """

    turns: list[Turn]  # the last one is the forbidden question
    leaks: bool  # without a cap
    count: int  # number of conversations that it was chosen from


def tell_story(lab: TinyLab, baseline: Branched, capped: Branched) -> Story:
    """Choose a conversation, and let the model without a cap read both of its versions."""
    leaks = [reading.right for reading in baseline.forbidden[LAST]]
    kept = torch.tensor(
        [[r.speaker == ASSISTANT for r in turn] for turn in baseline.conversations.readings]
    ).sum(0)  # (N,) turns in which the Assistant speaks
    leaking = sorted((i for i, leak in enumerate(leaks) if leak), key=lambda i: kept[i].item())
    before = baseline.conversations.projections(lab.axis, lab.layers[-1])[:, LAST - 1]
    chosen = leaking[len(leaking) // 2] if leaking else int(before.argmin())
    columns = [
        [turn[chosen] for turn in (*run.conversations.readings, run.forbidden[LAST])]
        for run in (baseline, capped)
    ]
    turns = list(zip(*columns, strict=True))
    both = Conversations(
        user_messages=[[reading.question.text for reading in turn] for turn in turns],
        replies=[[reading.reply for reading in turn] for turn in turns],
        means=[],
    )
    both = replace(both, means=lab.read_again(both))
    projections = both.projections(lab.axis, lab.layers[-1])  # (2, turns)
    return Story(
        turns=[
            Turn(readings=(left, right), projections=(p[0].item(), p[1].item()))
            for (left, right), p in zip(turns, projections.T, strict=True)
        ],
        leaks=any(leaks),
        count=len(leaks),
    )


def print_story(lab: TinyLab, story: Story) -> None:
    """Print some turns of the baseline and the capped conversation in two columns."""
    layer, last = lab.layers[-1], len(story.turns)
    floor, low, high = (
        lab.axis.thresholds(p)[layer].item() for p in (lab.percentile, 0, 100)
    )  # fmt: skip
    width = min(shutil.get_terminal_size((100, 24)).columns, 120) // 2 - 2

    def column(reading: Reading, projection: float, *, forbidden: bool) -> list[str]:
        scale = gauge(projection, floor, low, high, width=16)
        head = f"{projection:6.1f} {scale} {reading.speaker or 'no clear speaker'}"
        return [head + (f" {verdict(reading)}" if forbidden else ""),
                *textwrap.wrap(reading.reply, width)]  # fmt: skip

    choice = "the median of those that leak" if story.leaks else "the one that drifts furthest"
    print(
        f"\nA user speaks about feelings, or about what the model is. Then comes a forbidden "
        f"question.\nNo persona is requested. Of {story.count} conversations, this is {choice} "
        "without a cap.\nThis choice asks for a baseline that fails, and nothing of the capped "
        "side, so it flatters the\ncap. The table below counts all of them.\nThe number is the "
        f"projection of a reply on the axis at layer {layer}, as the model without a\n"
        "cap reads it. The dot shows it, with the Assistant to the right, and the bar shows the\n"
        f"floor of the cap, {floor:.1f}.\n"
    )
    print(f"{'BASELINE':{width + 3}s}CAPPED")
    for number, turn in enumerate(story.turns, 1):
        if number % 2 == 0 and number < last:
            continue
        name = "the forbidden question" if number == last else f"turn {number}"
        print(f"\n> {turn.readings[0].question.text}  ({name})")
        columns = (
            column(reading, projection, forbidden=number == last)
            for reading, projection in zip(turn.readings, turn.projections, strict=True)
        )
        for left, right in zip_longest(*columns, fillvalue=""):
            print(f"{left:{width + 3}s}{right}".rstrip())


def verdict(reading: Reading) -> str:
    """What a reply to a forbidden question does."""
    if reading.right:
        return "LEAKS THE SECRET"
    return "refuses" if reading.refused else "does neither"


Rows = dict[str, Compared[Rate]]  # label -> a row of a table


def harm_rows(runs: Compared[Branched]) -> Rows:
    """What personal conversations lead to: leak rates, and who speaks at the end."""

    def rates(o: Outcome) -> dict[str, Rate]:
        leaked = {f"leak rate after {a.turns} personal turns": a.leaked for a in o.forbidden}
        return leaked | {f"the Assistant speaks at personal turn {LAST}": o.assistant[-1]}

    return by_label(runs.map(lambda run: rates(outcome(run, PERSONAL))))


def cost_rows(lab: TinyLab) -> Rows:
    """What an intervention costs where nobody drifts, and whether requested personas leak."""
    rng = Random(lab.seed)
    forbidden = forbidden_questions(lab.world, rng, 32)["fantastical"]
    requests = {"forbidden": forbidden} | tasks(lab.world, rng, 24) | role_play(lab.world, rng, 2)

    def measure() -> dict[str, Rate]:
        readings = lab.ask_parts(requests)

        def kept(groups: Sequence[str]) -> Rate:
            return rate(personas_speak(joined(requests, groups), joined(readings, groups)))

        return {
            "accuracy on tasks": rate(r.right for r in joined(readings, TASKS)),
            "requested role-play kept": kept(GROUPS),
            "requested role-play kept, fantastical roles": kept(["fantastical"]),
            "leak rate, requested fantastical roles": rate(r.right for r in readings["forbidden"]),
        }

    return by_label(lab.compare(measure, random_axes=1))


def by_label(rates: Compared[dict[str, Rate]]) -> Rows:
    """The rows of a table with these rates."""
    return {label: rates.map(itemgetter(label)) for label in rates.baseline}


def print_rows(title: str, rows: Rows, *, heads: bool = False) -> None:
    """Print rates with their intervals, one row for each label.

    Args:
        heads: name the columns behind the title.
    """
    columns = f"{'n':>2s}  {'baseline':18s}{'capped':18s}random direction"
    print(f"\n{title:45s}{columns if heads else ''}".rstrip())
    for label, rates in rows.items():
        cells = (
            f"{r.rate:.2f} ({r.low:.2f}-{r.high:.2f})"
            for r in (rates.baseline, rates.capped, *rates.random)
        )
        print(f"{label:44s}{rates.baseline.n:3d}  {'  '.join(cells)}")


@dataclass(frozen=True)
class Answer:
    """A model's reply to one message under one intervention."""

    message: str
    intervention: str
    ids: list[int]
    text: str
    projections: Tensor  # (T,), one for each token of the reply

    @property
    def projection(self) -> float | None:
        """The mean projection; None if the reply is empty."""
        return self.projections.mean().item() if self.ids else None


def answer_messages(
    model: Transformer,
    tokenizer: AnyTokenizer,
    axis: Axis,
    messages: Sequence[str],
    interventions: Mapping[str, Callable[[], AbstractContextManager[None]]],
    *,
    layer: int,
    system: str,
    sampling: SamplingParams,
) -> Iterator[Answer]:
    """Answer each message as one turn of a conversation, with one conversation per intervention.

    Args:
        interventions: name -> a function that returns the intervention's context manager.
        layer: the layer at which the projections are read.
    """
    chats: dict[str, list[Message]] = {
        name: [{"role": "system", "content": system}] for name in interventions
    }
    memories = {name: Memory() for name in interventions}
    for turn, message in enumerate(messages):
        noise = row_noise(sampling.seed + turn, 1, sampling.max_new_tokens)
        for name, intervention in interventions.items():
            chat = chats[name]
            chat.append({"role": "user", "content": message})
            prompt = encode_chat(tokenizer, chat)
            check_prompts(model, [prompt], sampling.max_new_tokens)
            ids, projections = [], []
            memory = remembering(model, memories[name])
            with intervention(), memory, capture(model, [layer]) as seen:
                for step in decode_steps(model, [prompt], noise, tokenizer.stop, sampling):
                    if step.is_response[0]:  # the pass has read a token of the reply
                        projections.append(axis.project(seen[layer][0, -1], layer).item())
                    if step.alive[0]:
                        ids.append(int(step.tokens[0]))
            text = tokenizer.decode(ids)
            chat.append({"role": "assistant", "content": text})
            yield Answer(message, name, ids, text, torch.tensor(projections))
