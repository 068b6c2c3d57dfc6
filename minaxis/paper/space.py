"""Where do roles and the Assistant lie in persona space? (paper: section 2)

Persona space is spanned by the principal components of the role vectors (figures 1, 2, 15 to 18
and 27). The control is a model with random weights that read the same responses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from minaxis.axis import Axis, layer_table
from minaxis.paper.claims import Claim, Experiment, Rule, verdict
from minaxis.paper.figures import BLUE, GREEN, GREY, INK, ORANGE, legend_below, load_pyplot
from minaxis.support.stats import bootstrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEFAULT = "default"  # the default Assistant among the roles
GROUP_COLOURS = {"professional": BLUE, "everyday": GREEN, "fantastical": ORANGE}


@dataclass(frozen=True)
class Position:
    """Where a vector lies, measured from the mean of the roles."""

    coordinates: list[float]  # on PC1 to PC3
    cosines: list[float]  # with PC1 to PC3


@dataclass(frozen=True)
class PersonaSpace(Experiment):
    """The geometry of all layers, and the positions of the roles at the middle layer."""

    name: ClassVar[str] = "persona space"

    layer: int  # the middle layer
    layers: list[dict[str, Any]]  # the rows of `layer_table`
    random_weights: list[dict[str, Any]]  # its rows for random weights
    variance: list[float]  # share of the variance that each component explains
    positions: dict[str, Position]  # of the default and of each role
    adoption_rate: float  # share of the roles' responses that are in role
    groups: dict[str, str]  # role -> its group, where roles have one
    correlations_with_s: list[float] | None  # by layer; None where roles have no hidden number

    @property
    def components_needed(self) -> int:
        """The number of components that explain 70 % of the variance."""
        return int((torch.tensor(self.variance).cumsum(0) < 0.7).sum()) + 1

    def claims(self) -> list[Claim]:
        row, random = self.layers[self.layer], self.random_weights[self.layer]
        cosine, random_cosine = row["cos_pc1"], random["cos_pc1"]
        rank, count = row["default_rank_pc1"], len(self.positions)
        needed, adoption = self.components_needed, self.adoption_rate
        claims = [
            Claim(
                "The model adopts its roles (otherwise the axis is meaningless): adoption rate",
                "(none given)", adoption, None, verdict(adoption > 0.8, adoption > 0.5),
            ),
            Claim(
                "The axis is close to PC1 of persona space: cosine at the middle layer",
                "above .71 (sec. 2)", cosine, random_cosine,
                verdict(
                    cosine > 0.6 and random_cosine < cosine - 0.3, cosine > random_cosine + 0.1
                ),
            ),
            Claim(
                "Persona space has few dimensions: components that explain 70 % of the variance",
                "4 to 19 (sec. 2)", needed, None, verdict(needed <= 8, needed <= 19),
            ),
            Claim(
                f"The default Assistant lies at the end of PC1: rank among {count}",
                "1 (fig. 2)", rank, random["default_rank_pc1"],
                verdict(rank == 1, rank <= count / 4),
            ),
        ]  # fmt: skip
        if self.correlations_with_s is not None:
            s = abs(self.correlations_with_s[self.layer])
            claims.append(
                Claim(
                    "A hidden number that no text states orders the roles: its correlation with "
                    "their projections",
                    "(only here)", s, None, verdict(s > 0.9, s > 0.6),
                )
            )  # fmt: skip
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
        for name in [*ordered[:3], *ordered[middle : middle + 2], *ordered[-3:]]:
            x, y, *_ = roles[name]
            left.annotate(name, (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8)
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
        return {"persona-space": figure}


def measure_persona_space(
    axis: Axis,
    random_weights: Axis,
    *,
    adoption_rate: float,
    groups: Mapping[str, str] | None = None,
    correlations_with_s: Sequence[float] | None = None,
) -> PersonaSpace:
    """Compute principal components of the role vectors, and where the default lies on them.

    Args:
        random_weights: the axis of a model with random weights that read the same responses.
        adoption_rate, groups, correlations_with_s: see `PersonaSpace`.
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
    return PersonaSpace(
        layer=layer,
        layers=layer_table(axis),
        random_weights=layer_table(random_weights),
        variance=variance.tolist(),
        positions={
            name: Position(*row)
            for name, *row in zip(names, coordinates.tolist(), cosines.tolist(), strict=True)
        },
        adoption_rate=adoption_rate,
        groups=dict(groups or {}),
        correlations_with_s=None if correlations_with_s is None else list(correlations_with_s),
    )


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
            bootstrap(lambda chosen, i=i: agreement(i, chosen), len(roles)),
            Rule(at_least=0.92),
            of_paper=i == 0,
        )
        for i in range(loadings.shape[-1])
    ]
