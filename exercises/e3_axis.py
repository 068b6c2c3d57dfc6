"""3. The axis from means, and its sign.

The Assistant Axis of a layer is a difference of means. It points from the roles toward the
default Assistant:

    axis = mean(default responses) - mean(role vectors)

A role vector is the mean of one role's responses. Each role counts once, however many responses it
has, and the default does not count as a role. The axis is kept at its own length. A projection uses
the unit vector of each layer:

    projection = <h, axis / |axis|>          not centred, and no cosine

Question: which of four roles lies nearest to the Assistant? (`python exercises/show.py e3` tells
you, with your functions.)

The full version is `fit_axis` and `Axis.project` in minaxis/axis.py.
"""

import torch


def fit_axis(default: torch.Tensor, roles: dict[str, torch.Tensor]) -> torch.Tensor:
    """The axis of every layer.

    Args:
        default: (N, L, D), the mean activations of N responses of the default Assistant.
        roles: role -> (N, L, D), those of its responses. N differs from role to role.

    Returns:
        (L, D)
    """
    raise NotImplementedError("not solved yet: delete this line")


def project(h: torch.Tensor, axis: torch.Tensor) -> torch.Tensor:
    """The projection of activations h (..., L, D) on the axis (L, D) of their layer: (..., L)."""
    raise NotImplementedError("not solved yet: delete this line")
