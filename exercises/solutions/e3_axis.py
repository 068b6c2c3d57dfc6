"""3. The axis from means, and its sign. The full version: minaxis/axis.py."""

import torch


def fit_axis(default: torch.Tensor, roles: dict[str, torch.Tensor]) -> torch.Tensor:
    role_vectors = torch.stack([responses.mean(0) for responses in roles.values()])  # (R, L, D)
    return default.mean(0) - role_vectors.mean(0)


def project(h: torch.Tensor, axis: torch.Tensor) -> torch.Tensor:
    unit = axis / axis.norm(dim=-1, keepdim=True)  # (L, D)
    return (h * unit).sum(-1)
