"""7. Thresholds. The full versions: minaxis/axis.py and minaxis/loading/published.py."""

import torch


def floors(axis: torch.Tensor, means: dict[str, torch.Tensor], percentile: float) -> torch.Tensor:
    unit = axis / axis.norm(dim=-1, keepdim=True)  # (L, D)
    projections = torch.cat([(h * unit).sum(-1) for h in means.values()])  # (N, L)
    return projections.quantile(percentile / 100, dim=0)


def our_floor(vector: torch.Tensor, ceiling: float) -> tuple[torch.Tensor, float]:
    return -vector / vector.norm(), -ceiling


def our_percentile(p: float) -> float:
    return 100 * (1 - p)
