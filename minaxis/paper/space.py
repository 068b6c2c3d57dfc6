"""Persona space: where roles and the Assistant lie (paper: section 2)."""

import torch

from minaxis.axis import Axis, layer_table
from minaxis.paper.claims import Claim, verdict


def persona_space(axis: Axis, untrained: Axis) -> dict:
    """Principal components of the role vectors (paper: figures 1, 2, 15 to 18 and 27).

    Args:
        untrained: the axis of a model with random weights that read the same responses.

    Returns:
        `layers` and `random weights`: what `layer_table` says of each layer. At the middle layer
        `variance` of each component and how many explain 70 %, and for the default and each role
        its `place` on PC1 to PC3 (from the roles' mean) and the `cosines` with them.
    """
    layer = len(axis.vectors) // 2
    directions, variance = axis.pca(layer, components=len(axis.roles))
    vectors = torch.cat([axis.default[None, layer], axis.role_vectors[:, layer]])
    vectors = vectors - axis.role_vectors[:, layer].mean(0)
    places = vectors @ directions[:3].T  # (1 + R, 3)
    cosines = places / vectors.norm(dim=-1, keepdim=True)
    return {
        "layer": layer,
        "layers": layer_table(axis),
        "random weights": layer_table(untrained),
        "variance": variance.tolist(),
        "components for 70 %": int((variance.cumsum(0) < 0.7).sum()) + 1,
        "roles": {
            name: {"place": place.tolist(), "cosines": cosine.tolist()}
            for name, place, cosine in zip(["default", *axis.roles], places, cosines, strict=True)
        },
    }


def claims(found: dict) -> list[Claim]:
    """Of what `persona_space` returned, with the share of replies in role as `adoption`, and, if
    there is such a number, each layer's `correlation with s`."""
    middle = found["layer"]
    row, random = found["layers"][middle], found["random weights"][middle]
    cosine, chance = row["cos_pc1"], random["cos_pc1"]
    few, rank, count = found["components for 70 %"], row["default_rank_pc1"], len(found["roles"])
    adoption = found["adoption"]
    told = [
        Claim(
            "The model plays the roles that it is given (else the axis is void): share in role",
            "(none given)", adoption, None, verdict(adoption > 0.8, adoption > 0.5),
        ),
        Claim(
            "The axis is close to PC1 of persona space: cosine, middle layer",
            "above .71 (sec. 2)", cosine, chance,
            verdict(cosine > 0.6 and chance < cosine - 0.3, cosine > chance + 0.1),
        ),
        Claim(
            "Persona space has few dimensions: components for 70 % of the variance",
            "4 to 19 (sec. 2)", few, None, verdict(few <= 8, few <= 19),
        ),
        Claim(
            f"The default is at the end of PC1: rank among {count}",
            "1 (fig. 2)", rank, random["default_rank_pc1"],
            verdict(rank == 1, rank <= count / 4),
        ),
    ]  # fmt: skip
    if "correlation with s" in found:
        s = abs(found["correlation with s"][middle])
        told.append(
            Claim(
                "A number that no text states orders the roles: its correlation with the axis",
                "(only here)", s, None, verdict(s > 0.9, s > 0.6),
            )
        )  # fmt: skip
    return told
