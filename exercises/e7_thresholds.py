"""7. Thresholds: which percentile, of what, on which side.

The floor tau of a layer is a percentile of the calibration projections there. They are the
projections of the responses' mean activations, of the default and of all roles together, each
response once, whether or not a judge found it in role.

The paper's released code writes all this the other way round. Its vectors point away from the
Assistant, and it computes a ceiling on the projection along them. A layer of its files has a vector
v' of any length and a number, the cap; the projection is <h, v' / |v'|>, and tokens above the cap
are lowered to it. Its "p0.25" is the 25th percentile along v'.

Question: which of our percentiles is their "p0.25"? (`python exercises/show.py e7` compares it with
the default.)

The full version is `Axis.thresholds` in minaxis/axis.py, and minaxis/loading/published.py.
"""

import torch


def floors(axis: torch.Tensor, means: dict[str, torch.Tensor], percentile: float) -> torch.Tensor:
    """The floor of every layer.

    Args:
        axis: (L, D), toward the Assistant, of any length.
        means: role, or "default" -> (N, L, D), the mean activations of its N responses.
        percentile: 0 to 100, of the projections on the unit axis.

    Returns:
        (L,)
    """
    raise NotImplementedError("not solved yet: delete this line")


def our_floor(vector: torch.Tensor, ceiling: float) -> tuple[torch.Tensor, float]:
    """The unit vector v (D,) and the floor tau that do the same as a published vector and cap."""
    raise NotImplementedError("not solved yet: delete this line")


def our_percentile(p: float) -> float:
    """Our percentile, from 0 to 100, for the paper's "p0.25" (p is 0.25 then) and others."""
    raise NotImplementedError("not solved yet: delete this line")
