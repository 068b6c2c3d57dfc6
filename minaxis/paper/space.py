"""Where do roles and the Assistant lie in persona space? (paper: section 2)

Persona space is spanned by the principal components of the role vectors (figures 1, 2, 15 to 18
and 27). The control is a model with random weights that read the same responses.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from minaxis.axis import Axis, layer_table
from minaxis.paper.claims import Claim, Experiment, Rule
from minaxis.paper.components import (
    HiddenNumber,
    RoleFacts,
    by_feature,
    components_figure,
    hidden_number,
)
from minaxis.paper.figures import BLUE, GREEN, GREY, INK, ORANGE, legend_below, load_pyplot
from minaxis.roles import DEFAULT
from minaxis.support.stats import Estimate, bootstrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GROUP_COLOURS = {"professional": BLUE, "everyday": GREEN, "fantastical": ORANGE}


@dataclass(frozen=True)
class Position:
    """Where a vector lies, measured from the mean of the roles."""

    coordinates: list[float]  # on PC1 to PC3
    cosines: list[float]  # with PC1 to PC3


@dataclass(frozen=True)
class LowestCosine:
    """The layer at which the axis is least close to PC1."""

    layer: int
    cosine: Estimate
    random_weights: Estimate  # at the same layer


@dataclass(frozen=True)
class PersonaSpace(Experiment):
    """The geometry of all layers, and more of the middle layer. Intervals resample the roles."""

    name: ClassVar[str] = "persona space"

    layer: int  # the middle layer
    layers: list[dict[str, Any]]  # the rows of `layer_table`
    random_weights: list[dict[str, Any]]  # its rows for random weights
    variance: list[float]  # share of the variance that each component explains
    positions: dict[str, Position]  # of the default and of each role
    cosine: Estimate  # of the axis and PC1
    cosine_random_weights: Estimate
    lowest_cosine: LowestCosine
    components_needed: Estimate  # how many explain 70 % of the variance
    from_end: list[Estimate]  # of PC1 to PC3: see `from_end`
    from_end_random_weights: Estimate  # of PC1
    adoption_rate: Estimate  # share of the roles' responses that are in role
    groups: dict[str, str]  # role -> its group, where roles have one
    hidden_number: HiddenNumber | None  # None where roles have no hidden number
    explained: dict[str, list[float]]  # feature of the roles -> its share of PC1 to PC3

    def claims(self) -> list[Claim]:
        lowest = self.lowest_cosine
        claims = [
            Claim(
                "The model adopts its roles (otherwise the axis is meaningless): adoption rate",
                "", self.adoption_rate, Rule(at_least=0.8), of_paper=False,
            ),
            Claim(
                "The axis is close to PC1 of persona space: cosine at the middle layer",
                "above .71 (sec. 2)", self.cosine, Rule(at_least=0.71),
                self.cosine_random_weights, control_must_fail=True,
            ),
            Claim(
                "The axis is close to PC1 at every layer: the lowest cosine",
                "above .60 (sec. 2)", lowest.cosine, Rule(at_least=0.6),
                lowest.random_weights, control_must_fail=True,
            ),
            Claim(
                "Persona space has few dimensions: components that explain 70 % of the variance",
                "4 to 19 (sec. 2)", self.components_needed, Rule(at_least=4, at_most=19),
            ),
            Claim(
                "The default Assistant lies at the end of PC1: distance from the nearer end, as a "
                "share of the range",
                "within .03 (fig. 2)", self.from_end[0], Rule(at_most=0.03),
                self.from_end_random_weights,
            ),
            *(
                Claim(
                    f"The default's place on PC{i}: distance from the nearer end, as a share of "
                    "the range",
                    "", place, Rule(), of_paper=False,
                )
                for i, place in enumerate(self.from_end[1:], 2)
            ),
        ]  # fmt: skip
        if s := self.hidden_number:
            claims += [
                Claim(
                    "A hidden number that no text states orders the roles: its correlation with "
                    "their projections",
                    "", s.correlation, Rule(at_least=0.9), s.random_weights, of_paper=False,
                ),
                Claim(
                    "It orders them beyond the archaic words that it brings: partial correlation, "
                    "given each role's share of archaic replies",
                    "", s.partial, Rule(at_least=0.5), s.random_weights_partial, of_paper=False,
                ),
            ]  # fmt: skip
        return claims

    def figures(self) -> dict[str, "Figure"]:
        """Roles on the first two components, and how close the axis is to the first."""
        figure, (left, right) = load_pyplot().subplots(1, 2, figsize=(9, 3.9), layout="constrained")
        roles = {name: p.coordinates for name, p in self.positions.items() if name != DEFAULT}
        for name, (x, y, *_) in roles.items():
            colour = GROUP_COLOURS.get(self.groups.get(name, ""), BLUE)
            left.plot(x, y, "o", color=colour, markersize=5)
        for group, colour in GROUP_COLOURS.items():
            if group in self.groups.values():
                left.plot([], [], "o", color=colour, label=group, markersize=5)
        ordered = sorted(roles, key=lambda name: roles[name][0])
        middle = len(ordered) // 2
        for pair in (ordered[:2], ordered[middle : middle + 2], ordered[-2:]):
            side = "right" if pair == ordered[:2] else "left"  # away from the other points
            lower_first = sorted(pair, key=lambda name: roles[name][1])
            for name, end in zip(lower_first, ("top", "bottom"), strict=True):
                x, y, *_ = roles[name]
                left.text(x, y, f"  {name}  ", ha=side, va=end, fontsize=8.5)
        left.margins(x=0.27)
        x, y, *_ = self.positions[DEFAULT].coordinates
        left.plot(x, y, "*", color=INK, markersize=13, label="default Assistant")
        left.set_xlabel(f"PC1 ({self.variance[0]:.0%} of the variance)")
        left.set_ylabel(f"PC2 ({self.variance[1]:.0%})")
        left.set_title(f"Role vectors at layer {self.layer}")
        legend_below(left, 4)

        layers = [row["layer"] for row in self.layers]
        for rows, colour, label in (
            (self.layers, BLUE, "trained"),
            (self.random_weights, GREY, "random weights"),
        ):
            cosines = [row["cos_pc1"] for row in rows]
            right.plot(layers, cosines, "o-", color=colour, label=label, markersize=4)
        right.set_xlabel("layer")
        right.set_title("Cosine of the axis and PC1")
        right.set_ylim(0, 1.03)
        if len(layers) < 10:
            right.set_xticks(layers)
        legend_below(right, 2)
        figures = {"persona-space": figure}
        if self.explained:
            figures["components"] = components_figure(self.explained)
        return figures


def measure_persona_space(
    axis: Axis,
    random_weights: Axis,
    *,
    adoption_rate: Estimate,
    facts: Mapping[str, RoleFacts] | None = None,
) -> PersonaSpace:
    """Compute principal components of the role vectors, and where the default lies on them.

    Args:
        random_weights: the axis of a model with random weights that read the same responses.
        adoption_rate: see `PersonaSpace`.
        facts: of each role, where they are known.
    """
    assert axis.role_vectors is not None
    assert axis.default is not None
    layer = len(axis.vectors) // 2
    components, variance = axis.pca(layer, components=len(axis.roles))
    vectors = torch.cat([axis.default[None, layer], axis.role_vectors[:, layer]])  # (1 + R, D)
    vectors = vectors - axis.role_vectors[:, layer].mean(0)
    coordinates = vectors @ components[:3].T  # (1 + R, 3)
    cosines = coordinates / vectors.norm(dim=-1, keepdim=True)
    names = [DEFAULT, *axis.roles]
    layers = layer_table(axis)
    lowest = min(layers, key=lambda row: row["cos_pc1"])["layer"]
    return PersonaSpace(
        layer=layer,
        layers=layers,
        random_weights=layer_table(random_weights),
        variance=variance.tolist(),
        positions={
            name: Position(*row)
            for name, *row in zip(names, coordinates.tolist(), cosines.tolist(), strict=True)
        },
        cosine=over_roles(axis, partial(cosine_with_pc1, layer=layer)),
        cosine_random_weights=over_roles(random_weights, partial(cosine_with_pc1, layer=layer)),
        lowest_cosine=LowestCosine(
            layer=lowest,
            cosine=over_roles(axis, partial(cosine_with_pc1, layer=lowest)),
            random_weights=over_roles(random_weights, partial(cosine_with_pc1, layer=lowest)),
        ),
        components_needed=over_roles(
            axis, partial(components_needed, layer=layer), most=len(axis.roles)
        ),
        from_end=[over_roles(axis, partial(from_end, layer=layer, component=i)) for i in range(3)],
        from_end_random_weights=over_roles(
            random_weights, partial(from_end, layer=layer, component=0)
        ),
        adoption_rate=adoption_rate,
        groups={role: facts[role].group for role in axis.roles} if facts else {},
        hidden_number=hidden_number(axis, random_weights, facts, layer) if facts else None,
        explained=by_feature(coordinates[1:], [facts[r] for r in axis.roles]) if facts else {},
    )


def over_roles(axis: Axis, statistic: Callable[[Axis], float], *, most: float = 1) -> Estimate:
    """A statistic of an axis, 0 to `most`, with an interval from resampling the roles."""
    return bootstrap(
        lambda chosen: statistic(with_roles(axis, chosen)), len(axis.roles), within=(0, most)
    )  # fmt: skip


def with_roles(axis: Axis, chosen: Tensor) -> Axis:
    """The axis of some of the roles: indices, some of them repeated."""
    assert axis.role_vectors is not None
    assert axis.default is not None
    vectors, names = axis.role_vectors[chosen], [axis.roles[i] for i in chosen.tolist()]
    return replace(
        axis, vectors=axis.default - vectors.mean(0), roles=names, role_vectors=vectors
    )  # fmt: skip


def cosine_with_pc1(axis: Axis, layer: int) -> float:
    """The cosine of the axis and PC1 at a layer."""
    return (axis.unit()[layer] @ axis.pca(layer)[0][0]).item()


def components_needed(axis: Axis, layer: int) -> int:
    """The number of components that explain 70 % of the variance at a layer."""
    _, variance = axis.pca(layer, components=len(axis.roles))
    return int((variance.cumsum(0) < 0.7).sum()) + 1


def from_end(axis: Axis, layer: int, component: int) -> float:
    """How far the default is from the nearer end of a component, as a share of the range.

    The range is that of the roles and the default together: 0 is an end, .5 the middle.
    """
    assert axis.role_vectors is not None
    assert axis.default is not None
    direction = axis.pca(layer)[0][component]
    roles, default = axis.role_vectors[:, layer] @ direction, axis.default[layer] @ direction
    low, high = torch.minimum(roles.min(), default), torch.maximum(roles.max(), default)
    return (torch.minimum(default - low, high - default) / (high - low)).item()
