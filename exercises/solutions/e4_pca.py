"""4. PCA, its sign, the default's place, and a control. The full version: minaxis/axis.py."""

import torch

import minaxis as mx


def first_component(role_vectors: torch.Tensor, axis: torch.Tensor) -> tuple[torch.Tensor, float]:
    _, s, directions = torch.linalg.svd(role_vectors - role_vectors.mean(0), full_matrices=False)
    component = directions[0] if directions[0] @ axis > 0 else -directions[0]
    return component, (s[0] ** 2 / s.square().sum()).item()


def rank_of_default(
    role_vectors: torch.Tensor, default: torch.Tensor, direction: torch.Tensor
) -> int:
    return int((role_vectors @ direction > default @ direction).sum()) + 1


def cosine_and_control(
    model: mx.Transformer, tokenizer: mx.Tokenizer, rollouts: mx.Rollouts, layer: int
) -> tuple[float, float]:
    def cosine(rollouts: mx.Rollouts) -> float:
        roles, default = vectors_of(rollouts, layer)
        axis = default - roles.mean(0)
        component, _ = first_component(roles, axis)
        return torch.cosine_similarity(axis, component, dim=0).item()

    random = mx.Transformer(model.config).initialise(torch.Generator().manual_seed(0))
    return cosine(rollouts), cosine(mx.replay(random, tokenizer, rollouts))


def vectors_of(rollouts: mx.Rollouts, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    means = {role: rollouts[role]["mean"][:, layer].mean(0) for role in rollouts}
    default = means.pop("default")
    return torch.stack(list(means.values())), default
