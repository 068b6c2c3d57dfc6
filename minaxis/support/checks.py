"""What must hold before an axis is fitted or used: finite numbers, and directions with a length."""

import json
from collections.abc import Mapping

import torch
from torch import Tensor

from minaxis.support.rollout_store import Rollout


def usable_responses(rollout: Rollout, position: str) -> tuple[Tensor, int]:
    """Which of a role's N responses can enter an axis.

    Args:
        position: whose activations are meant, "mean" or "prompt_end".

    Returns:
        (N,) bool: the response has tokens, and its activations are finite; and how many responses
        have tokens, but activations that are not finite.
    """
    not_empty = torch.tensor([len(r["ids"]) > 0 for r in rollout["responses"]])
    finite = rollout[position].isfinite().all(-1) & rollout["norm"].isfinite()  # (N, L)
    usable = not_empty & finite.all(-1)
    return usable, int((not_empty & ~usable).sum())


def check_finite(nonfinite: Mapping[str, int]) -> None:
    """Raise a ValueError if a role has responses whose activations are not finite."""
    if nonfinite:
        raise ValueError(
            f"some responses have activations that are not finite: {json.dumps(nonfinite)}. Try "
            "another dtype, such as float32, or leave them out (skip_nonfinite, --skip-nonfinite)"
        )


def check_directions(vectors: Tensor, what: str, least: Tensor | float = 0.0) -> None:
    """Raise a ValueError if one of L vectors (L, D) is no longer than `least`, or not finite."""
    lengths = vectors.norm(dim=-1)
    if len(bad := (~(lengths.isfinite() & (lengths > least))).nonzero()):
        raise ValueError(
            f"{what} of layer {bad[0].item()} has length {lengths[bad[0]].item()}: it has no "
            "direction, fit it again (with roles that differ, on a model whose weights are finite)"
        )
