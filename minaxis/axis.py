"""The Assistant Axis: fit it, look at it, save it.

    axis = mean(default responses) - mean(role vectors)        at each layer; paper: section 2

It points TOWARD the default Assistant. A role vector is the mean activation of a role's responses,
or of those that a judge found in role. The axis is stored unnormalised. The projection of h is
`<h, axis / ||axis||>`, in the unit of the activations: it is not centred, and it is no cosine.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minaxis.hooks import check_layers, describe
from minaxis.loading.published import read_axis
from minaxis.roles import DEFAULT
from minaxis.support.checks import check_directions, check_finite, usable_responses
from minaxis.support.files import write_tensors
from minaxis.support.rollout_store import Rollouts

_PLAIN = ("roles", "adoption", "meta")  # the fields of an Axis that are not tensors


@dataclass
class Axis:
    """One direction a layer, and what was measured with it.

    A published axis file may hold `vectors` alone.
    """

    vectors: Tensor  # (L, D) toward the Assistant, unnormalised
    default: Tensor | None = None  # (L, D) mean activation of the default responses
    roles: list[str] = field(default_factory=list)  # the names of the R roles
    role_vectors: Tensor | None = None  # (R, L, D)
    norms: Tensor | None = None  # (L,) mean length of a token's activation
    projections: Tensor | None = None  # (N, L) of every calibration response, on the unit axis
    split_half: Tensor | None = None  # (L,) cosine of the axes of halves that share no role prompt
    split_questions: Tensor | None = None  # (L,) the same for halves that share no question
    adoption: dict[str, float] = field(default_factory=dict)  # role -> share in role, if judged
    meta: dict = field(default_factory=dict)  # model, settings, version: what it belongs to

    def unit(self) -> Tensor:
        """(L, D): the directions at length 1."""
        return self.vectors / self.vectors.norm(dim=-1, keepdim=True)

    def project(self, h: Tensor, layer: int) -> Tensor:
        """Projection of activations h (..., D) of one layer on its unit axis: (...)."""
        check_layers([layer], len(self.vectors))
        return h.float() @ self.unit()[layer].to(h.device)

    def thresholds(self, percentile: float) -> Tensor:
        """(L,): the percentile, 0 to 100, of the calibration projections, each layer by itself.

        All responses count together, so the percentile depends on how often the default answers.
        (The paper's "p0.25" counts along the negated axis: it is the 75th percentile here.)
        """
        if self.projections is None or not len(self.projections):
            raise ValueError(
                "this axis has no calibration projections (a published file holds none): give "
                "thresholds yourself, or fit an axis with fit_axis"
            )
        if not 0 <= percentile <= 100:
            raise ValueError(f"percentile must be between 0 and 100, got {percentile}")
        if not self.projections.isfinite().all():
            raise ValueError("the calibration projections are not finite: fit the axis again")
        return self.projections.quantile(percentile / 100, dim=0)

    def pca(self, layer: int, components: int = 3) -> tuple[Tensor, Tensor]:
        """Principal components of the role vectors at one layer (paper: section 2).

        The role vectors are mean-centred and not scaled. The sign of a component is arbitrary:
        each is turned so that its dot product with the axis is positive.

        Returns:
            directions: (components, D) of length 1.
            variance: (components,) share of the variance that each explains.
        """
        if self.role_vectors is None or len(self.roles) < 2:
            raise ValueError(f"PCA needs two role vectors or more, this axis has {len(self.roles)}")
        vectors = self.role_vectors[:, layer]
        _, s, directions = torch.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
        directions, variance = directions[:components], s.square() / s.square().sum()
        sign = torch.where(directions @ self.vectors[layer] < 0, -1.0, 1.0)
        return directions * sign[:, None], variance[:components]

    def check(self, model: nn.Module) -> None:
        """Raise a ValueError unless this axis belongs to this model and has a direction everywhere.

        An axis file that does not name its model belongs to every model of its shape.
        """
        name, layers, width = describe(model)
        mine = self.meta.get("model")
        if mine not in (None, name) or self.vectors.shape != (layers, width):
            raise ValueError(
                f"this axis belongs to {mine or 'an unnamed model'} ({self.vectors.shape[0]} "
                f"layers, width {self.vectors.shape[1]}), but the model is {name} ({layers} "
                f"layers, width {width}): fit one for it with fit_axis.py"
            )
        check_directions(self.vectors, "the axis")

    def save(self, path: str | Path) -> None:
        """Write the axis; equal axes give equal files, byte for byte."""
        state = {f.name: getattr(self, f.name) for f in fields(self)}
        # As JSON: pickle stores repeated objects by reference, so equal axes could differ in bytes.
        plain = {name: state.pop(name) for name in _PLAIN}
        write_tensors(path, state | {"json": json.dumps(plain)})

    @classmethod
    def load(cls, path: str | Path) -> "Axis":
        """Read an axis file of ours, a published tensor (L, D), the reference pipeline's
        `{"axis": (L, D), "metadata": {...}}`, or a published folder. Nothing is executed.

        Raises:
            ValueError: no such file, damaged, holding code, or none of these; or a field of
                another kind or shape, or with numbers that are not finite.
        """
        return cls(**read_axis(path))


def fit_axis(
    rollouts: Rollouts,
    adopted: Mapping[str, Tensor] | None = None,
    *,
    position: str = "mean",
    minimum: int = 2,
    skip_nonfinite: bool = False,
) -> Axis:
    """The axis of a model from its roles' responses (paper: section 2).

    Args:
        rollouts: from `collect`.
        adopted: role -> (N,) bool, which responses are in role (`judge`): only these enter the
            role vector, and `axis.adoption` has the rate of every role. None takes all responses.
        position: "mean" over the response's tokens, or "prompt_end", the last token of the prompt.
        minimum: a role with fewer responses in role than this is left out of the axis.
        skip_nonfinite: leave out NaN and infinite activations; `meta["nonfinite"]` counts them.

    Returns:
        The axis. Its calibration projections are those of all responses, in role or not.

    Raises:
        ValueError: no default, fewer than two roles left, roles that do not differ, activations
            that are not finite (the message counts them), or a role without its rollout.
    """
    if position not in ("mean", "prompt_end"):
        raise ValueError(f"position must be 'mean' or 'prompt_end', got {position!r}")
    vectors: dict[str, Tensor] = {}  # role -> (L, D)
    halves: dict[str, dict[str, Tensor]] = {"split_half": {}, "split_questions": {}}  # (2, L, D)
    adoption: dict[str, float] = {}
    nonfinite: dict[str, int] = {}  # role -> number of responses
    norms, count = torch.zeros(()), torch.zeros((), dtype=torch.long)
    for role in rollouts:
        rollout = rollouts[role]
        h, responses = rollout[position], rollout["responses"]  # (N, L, D)
        usable, bad = usable_responses(rollout, position)  # (N,) bool, a number
        nonfinite |= {role: bad} if bad else {}
        norms, count = norms + rollout["norm"][usable].sum(0), count + usable.sum()
        kept = usable if adopted is None or role == DEFAULT else usable & adopted[role]
        if role != DEFAULT and adopted is not None:
            adoption[role] = kept.float().mean().item()
        if kept.sum() < minimum:
            continue
        vectors[role] = h[kept].mean(0)
        # Responses come prompt by prompt, each with all questions.
        order, questions = torch.arange(len(responses)), len(rollouts.meta["questions"])
        sides = {"split_half": order // questions % 2, "split_questions": order % questions % 2}
        for split, half in sides.items():
            if (kept & (half == 0)).any() and (kept & (half == 1)).any():
                halves[split][role] = torch.stack([h[kept & (half == i)].mean(0) for i in (0, 1)])
    check_finite({} if skip_nonfinite else nonfinite)
    if DEFAULT not in vectors or len(vectors) < 3:
        kind, hint = "usable responses", "ask more questions"
        if adopted is not None:
            kind, hint = "responses in role", "if roles are not adopted, try stronger role prompts"
        raise ValueError(
            f"{len(vectors)} of {len(rollouts)} roles, default included, have {minimum} {kind} or "
            f"more; an axis needs the default and two: {hint}"
        )
    axis, default = default_minus_roles(vectors), vectors.pop(DEFAULT)
    role_vectors = torch.stack(list(vectors.values()))  # (R, L, D)
    norms = norms / count  # (L,)
    check_directions(axis, "the axis", 1e-6 * norms)  # equal responses may differ by rounding
    check_directions(role_vectors.std(0), "the spread of the roles", 1e-6 * norms)
    unit = axis / axis.norm(dim=-1, keepdim=True)
    projections = torch.cat([(rollouts[role][position] * unit).sum(-1) for role in rollouts])
    agreement = {}
    for split, by_role in halves.items():
        if DEFAULT in by_role and len(by_role) > 1:
            first, second = default_minus_roles(by_role)  # (2, L, D)
            agreement[split] = torch.cosine_similarity(first, second, dim=-1)
    settings = {"position": position, "judged": adopted is not None, "nonfinite": nonfinite}
    return Axis(
        vectors=axis,
        default=default,
        roles=list(vectors),
        role_vectors=role_vectors,
        norms=norms,
        projections=projections[projections.isfinite().all(-1)],
        split_half=agreement.get("split_half"),
        split_questions=agreement.get("split_questions"),
        adoption=adoption,
        meta=rollouts.meta | settings,
    )


def default_minus_roles(vectors: Mapping[str, Tensor]) -> Tensor:
    """The axis and its sign: the default's vector minus the mean of the role vectors."""
    roles = [vector for role, vector in vectors.items() if role != DEFAULT]
    return vectors[DEFAULT] - torch.stack(roles).mean(0)


def rank_and_zscore(axis: Axis, direction: Tensor, layer: int) -> tuple[int, float]:
    """Where the default is among the roles along a direction (D,) at one layer.

    Returns:
        rank: 1 if no role lies further along it.
        z-score: distance from the roles' mean, in standard deviations of the roles.
    """
    if axis.default is None or axis.role_vectors is None:
        raise ValueError("this axis lacks its default or its role vectors: fit one with fit_axis")
    roles, default = axis.role_vectors[:, layer] @ direction, axis.default[layer] @ direction
    z = (default - roles.mean()) / roles.std()
    return int((roles > default).sum()) + 1, z.item()


def layer_table(axis: Axis) -> list[dict[str, Any]]:
    """The geometry of each layer, one dict of plain numbers a layer.

    cos_pc1, variance of PC1 to PC3, split_half, split_questions, and the default's rank and z-score
    on the axis and on PC1. On the axis a rank near 1 is nearly guaranteed; on PC1 it is not.
    """
    halves = {"split_half": axis.split_half, "split_questions": axis.split_questions}
    rows = []
    for layer, unit in enumerate(axis.unit()):
        components, variance = axis.pca(layer)
        rank, z = rank_and_zscore(axis, unit, layer)
        rank_pc1, z_pc1 = rank_and_zscore(axis, components[0], layer)
        rows.append(
            {
                "layer": layer,
                "cos_pc1": (unit @ components[0]).item(),
                "variance": variance.tolist(),
                **{split: None if x is None else x[layer].item() for split, x in halves.items()},
                "default_rank": rank,
                "default_z": z,
                "default_rank_pc1": rank_pc1,
                "default_z_pc1": z_pc1,
            }
        )
    return rows
