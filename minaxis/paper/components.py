"""What are the principal components about, and do several models have the same?

In the tiny world, every fact about a character is known, so the components can be compared with
each.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from minaxis.axis import Axis
from minaxis.paper.claims import Claim, Rule
from minaxis.paper.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, legend_below, load_pyplot
from minaxis.roles import DEFAULT
from minaxis.support.rollout_store import Rollouts
from minaxis.support.stats import Estimate, bootstrap, share
from minaxis.tiny.questions import read_replies
from minaxis.tiny.topics import Question
from minaxis.tiny.world import World

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class RoleFacts:
    """What is known about a character of the tiny world."""

    group: str
    mood: str
    s: float  # the hidden number, 0 to 1: near the Assistant, or far from it
    archaic: float  # share of its responses that have archaic words


def role_facts(world: World, rollouts: Rollouts, roles: Sequence[str]) -> dict[str, RoleFacts]:
    """The facts about some characters, and the share of archaic replies in their rollouts."""

    def archaic(role: str) -> float:
        replies = [response["text"] for response in rollouts[role]["responses"]]
        readings = read_replies(world, [Question("", "")] * len(replies), replies)
        return share(reading.archaic for reading in readings)

    return {
        role: RoleFacts(
            group=world.group(role),
            mood=world.characters[role]["mood"],
            s=world.characters[role]["s"],
            archaic=archaic(role),
        )
        for role in roles
    }


FEATURES: dict[str, Callable[[RoleFacts], str | float]] = {
    "hidden number s": lambda facts: facts.s,
    "archaic replies": lambda facts: facts.archaic,
    "group": lambda facts: facts.group,
    "mood": lambda facts: facts.mood,
}


@dataclass(frozen=True)
class HiddenNumber:
    """How the roles' projections follow s, which no text states. Positive: low s lies high."""

    correlation: Estimate
    partial: Estimate  # the same, given the share of archaic replies
    random_weights: Estimate  # the same two with random weights, which see only the words
    random_weights_partial: Estimate


def hidden_number(
    axis: Axis, random_weights: Axis, facts: Mapping[str, RoleFacts], layer: int
) -> HiddenNumber:
    """Correlate the roles' projections with s, in a model and with random weights."""
    names = [role for role in axis.roles if role in random_weights.roles]
    s = torch.tensor([facts[name].s for name in names])
    archaic = torch.tensor([[facts[name].archaic] for name in names])

    def estimate(axis: Axis, given: Tensor) -> Estimate:
        assert axis.role_vectors is not None
        rows = [axis.roles.index(name) for name in names]
        high = axis.project(axis.role_vectors[rows, layer], layer)  # (N,)
        return bootstrap(
            lambda i: -correlation(high[i], s[i], given[i]), len(names), within=(-1, 1)
        )  # fmt: skip

    nothing = torch.zeros(len(names), 0)
    return HiddenNumber(
        correlation=estimate(axis, nothing),
        partial=estimate(axis, archaic),
        random_weights=estimate(random_weights, nothing),
        random_weights_partial=estimate(random_weights, archaic),
    )


def correlation(a: Tensor, b: Tensor, given: Tensor) -> float:
    """The partial correlation of a (N,) and b (N,), given other numbers (N, K)."""
    return torch.corrcoef(torch.stack([_unexplained(a, given), _unexplained(b, given)]))[
        0, 1
    ].item()


def by_feature(coordinates: Tensor, facts: Sequence[RoleFacts]) -> dict[str, list[float]]:
    """What each feature explains of each component.

    Args:
        coordinates: of the roles on the components, (R, components).
        facts: of the R roles.
    """
    return {
        feature: [explained(column, [value(f) for f in facts]) for column in coordinates.T]
        for feature, value in FEATURES.items()
    }


def explained(y: Tensor, values: Sequence[str | float]) -> float:
    """The share of the variance of y (N,) that a number or a category explains: adjusted R^2.

    Chance gives 0 on average, however many categories there are.
    """
    if isinstance(values[0], str):
        kinds = sorted({str(value) for value in values})[1:]
        x = torch.tensor([[float(value == kind) for kind in kinds] for value in values])
    else:
        x = torch.tensor([[float(value)] for value in values])
    n, k = x.shape
    left = _unexplained(y, x).square().sum() / (y - y.mean()).square().sum()
    return 1 - left.item() * (n - 1) / (n - k - 1)


def _unexplained(y: Tensor, x: Tensor) -> Tensor:
    """What a linear fit on x (N, K) and a constant leaves of y (N,)."""
    x = torch.cat([torch.ones(len(y), 1), x], 1)
    return y - x @ (torch.linalg.pinv(x) @ y)


def components_figure(explained: Mapping[str, Sequence[float]]) -> "Figure":
    """What each feature explains of PC1 to PC3.

    Args:
        explained: feature -> its share of the variance of each component.
    """
    figure, ax = load_pyplot().subplots(figsize=(6, 2.8), layout="constrained")
    for i, (feature, colour) in enumerate(
        zip(explained, (BLUE, ORANGE, GREEN, PURPLE), strict=True)
    ):
        at = [component + (i - 1.5) * 0.2 for component in range(len(explained[feature]))]
        ax.bar(at, explained[feature], 0.18, color=colour, label=feature)
    ax.axhline(0, color=GREY, linewidth=1, label="chance")
    components = range(len(next(iter(explained.values()))))
    ax.set_xticks(components, [f"PC{component + 1}" for component in components])
    ax.set_ylim(-0.15, 1)
    ax.set_ylabel("variance explained\n(adjusted $R^2$)")
    ax.set_title("What the principal components are about")
    legend_below(ax, 3)
    return figure


def loadings_claims(runs: Sequence[Mapping[str, Mapping[str, list[float]]]]) -> list[Claim]:
    """The claims that several models place the same roles alike. No claim for a single run.

    Args:
        runs: of each run, role -> the fields of its `Position`.
    """
    roles = [role for role in runs[0] if role != DEFAULT and all(role in run for run in runs)]
    if len(runs) < 2 or len(roles) < 3:
        return []
    loadings = torch.tensor([[run[role]["coordinates"] for role in roles] for run in runs])

    def agreement(component: int, chosen: Tensor) -> float:
        correlations = torch.corrcoef(loadings[:, chosen, component]).abs()  # the sign is arbitrary
        return correlations[tuple(torch.triu_indices(len(runs), len(runs), 1))].mean().item()

    return [
        Claim(
            f"The runs place the roles alike on PC{i + 1}: correlation of their positions, mean of "
            "all pairs of runs",
            "above .92 (sec. 2)" if i == 0 else "",
            bootstrap(partial(agreement, i), len(roles), within=(0, 1)),
            Rule(at_least=0.92),
            of_paper=i == 0,
        )
        for i in range(loadings.shape[-1])
    ]
