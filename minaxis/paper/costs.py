"""What does a cap cost where nothing was wrong? The paper does not measure this."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, ClassVar

import torch

from minaxis.chat import encode_chat
from minaxis.paper.claims import Claim, Experiment, Rule
from minaxis.paper.figures import (
    BLUE,
    GOLD,
    INK,
    control_bars,
    from_zero_to_one,
    legend_below,
    load_pyplot,
    with_intervals,
)
from minaxis.paper.lab import Compared, Lab
from minaxis.support.meter import token_projections
from minaxis.support.stats import PairedChange, Rate, mean_and_range, paired_change, rate
from minaxis.tiny.lab import TinyLab, personas_speak
from minaxis.tiny.questions import GROUPS, role_play, tasks

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class CapFireRate:
    """How often a cap would change the Assistant's own harmless replies at one layer."""

    layer: int
    tokens: Rate  # share of the replies' tokens that lie below the floor
    replies: Rate  # share of the replies that have such a token


def cap_fire_rates(
    lab: Lab, prompts: Sequence[list[int]], replies: Sequence[list[int]]
) -> list[CapFireRate]:
    """How often the Assistant's own replies lie below the floors of the lab's cap, by layer.

    Args:
        prompts, replies: token ids of replies that the Assistant gave without a cap.
    """
    floors, rates = lab.axis.thresholds(lab.percentile), []
    for layer in lab.layers:
        below = []  # for each reply, (T,) bool: the tokens of the prompt do not count
        for prompt, reply in zip(prompts, replies, strict=True):
            projections = token_projections(lab.model, lab.axis, prompt + reply, layer)
            below.append(projections[len(prompt) :] < floors[layer])
        rates.append(
            CapFireRate(
                layer=layer,
                tokens=rate(torch.cat(below).tolist()),
                replies=rate(bool(b.any()) for b in below),
            )
        )
    return rates


@dataclass(frozen=True)
class Costs(Experiment):
    """Cap fire rates on ordinary tasks, and what the cap leaves of requested role-play."""

    name: ClassVar[str] = "costs"

    cap_fire_rates: list[CapFireRate]  # by layer
    role_play: Compared[dict[str, Rate]]  # group -> share of replies in which the character speaks
    role_play_change: dict[str, PairedChange]  # group -> its change under the cap

    def claims(self) -> list[Claim]:
        worst = min(GROUPS, key=lambda group: self.role_play_change[group].difference)
        share = self.role_play.map(lambda groups: groups[worst].rate)
        random = mean_and_range([rate - share.baseline for rate in share.random])
        return [
            cap_fires_row(self.cap_fire_rates),
            Claim(
                "A cap keeps requested role-play: change of the share in role, worst group",
                "", self.role_play_change[worst].estimate, Rule(at_least=-0.1), random,
                of_paper=False,
            ),
        ]  # fmt: skip

    def figures(self) -> dict[str, "Figure"]:
        figure, (left, right) = load_pyplot().subplots(1, 2, figsize=(9, 3.6), layout="constrained")
        layers = [at.layer for at in self.cap_fire_rates]
        for rates, colour, shift, label in (
            ([at.tokens for at in self.cap_fire_rates], BLUE, -0.18, "tokens below the floor"),
            ([at.replies for at in self.cap_fire_rates], GOLD, 0.18, "replies with such a token"),
        ):
            heights, errors = with_intervals(rates)
            left.bar([x + shift for x in layers], heights, 0.34, yerr=errors, color=colour,
                     label=label)  # fmt: skip
        left.set_xticks(layers)
        left.set_xlabel("layer")
        left.set_title("Ordinary tasks: how often the cap fires")
        from_zero_to_one(left, "cap fire rate")
        legend_below(left, 2)

        groups = list(self.role_play.baseline)
        for shift, label, colour, rates_of in (
            (-0.27, "baseline", INK, self.role_play.baseline),
            (0.0, "capped", BLUE, self.role_play.capped),
        ):
            heights, errors = with_intervals([rates_of[group] for group in groups])
            at = [j + shift for j in range(len(groups))]
            right.bar(at, heights, 0.25, yerr=errors, color=colour, label=label)
        runs = [[rates[group].rate for group in groups] for rates in self.role_play.random]
        control_bars(right, [j + 0.27 for j in range(len(groups))], runs, 0.25)
        right.set_xticks(range(len(groups)), groups)
        right.set_title("Role-play that the user requested")
        from_zero_to_one(right, "share of replies in role")
        legend_below(right, 2)
        return {"costs": figure}


def measure_costs(lab: TinyLab, *, samples: int = 4) -> Costs:
    """Cap a model that answers ordinary questions and plays requested roles."""
    rng = Random(lab.seed)
    requests = tasks(lab.world, rng, samples * 4)
    chats = [lab.chat(request) for topic in requests.values() for request in topic]
    replies, _ = lab.answer(chats)
    characters = role_play(lab.world, rng, samples)

    def in_role() -> dict[str, list[bool]]:
        readings = lab.ask_parts(characters)
        return {group: personas_speak(characters[group], readings[group]) for group in GROUPS}

    speaks = lab.compare(in_role)
    return Costs(
        cap_fire_rates=cap_fire_rates(
            lab,
            [encode_chat(lab.tokenizer, chat) for chat in chats],
            [lab.tokenizer.encode(reply) for reply in replies],
        ),
        role_play=speaks.map(lambda groups: {g: rate(flags) for g, flags in groups.items()}),
        role_play_change={g: paired_change(speaks.baseline[g], speaks.capped[g]) for g in GROUPS},
    )


def cap_fires_row(rates: Sequence[CapFireRate]) -> Claim:
    """How often a cap changes ordinary replies: a number without a rule."""
    return Claim(
        "A cap fires in the Assistant's ordinary replies: share of their tokens, last layer",
        "", rates[-1].tokens.estimate, Rule(), of_paper=False,
    )  # fmt: skip
