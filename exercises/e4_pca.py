"""4. PCA, its sign, the default's place, and why the cosine needs a control.

PCA of the role vectors finds the directions in which roles differ most. The vectors are centred,
and they are not scaled. The sign of a component is arbitrary, so we turn the first one, PC1, until
its dot product with the axis is positive.

Question: is the axis PC1? The paper finds cosines above .6. A number like this means little by
itself: in a model with random weights, different words also give different activations, and a
difference of means may follow PC1 as well. So let a model with random weights read the same
responses, and compute its own axis, its own PC1, and their cosine. (`python exercises/show.py e4`
shows both numbers at each layer.)

What you need:
    torch.linalg.svd(x, full_matrices=False)         gives u, s, vh with x = u @ diag(s) @ vh. The
                                                     rows of vh are the components, and s**2 their
                                                     variances, up to a factor; the largest is first
    mx.Transformer(config).initialise(generator)     a model with random weights; model.config has
                                                     the same shapes
    mx.replay(model, tokenizer, rollouts)            rollouts of the same responses, but with the
                                                     activations of this model as it reads them

The full version is `Axis.pca`, `rank_and_zscore` in minaxis/axis.py, and `fit_axis.py`.
"""

import torch

import minaxis as mx


def first_component(role_vectors: torch.Tensor, axis: torch.Tensor) -> tuple[torch.Tensor, float]:
    """PC1 of role vectors (R, D), turned toward the axis (D,).

    Returns:
        The direction (D,), of length 1, and its share of the variance, from 0 to 1.
    """
    raise NotImplementedError("not solved yet: delete this line")


def rank_of_default(
    role_vectors: torch.Tensor, default: torch.Tensor, direction: torch.Tensor
) -> int:
    """The default's rank among roles (R, D) along a direction: 1 if no role lies further."""
    raise NotImplementedError("not solved yet: delete this line")


def cosine_and_control(
    model: mx.Transformer, tokenizer: mx.Tokenizer, rollouts: mx.Rollouts, layer: int
) -> tuple[float, float]:
    """The cosine of the axis and PC1, for this model, and for one with random weights.

    The axis is the default's vector minus the mean of the role vectors. `vectors_of` (below) gives
    these vectors. Draw the random weights with `torch.Generator().manual_seed(0)`.

    Args:
        rollouts: this model's responses, and its activations.
    """
    raise NotImplementedError("not solved yet: delete this line")


def vectors_of(rollouts: mx.Rollouts, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The role vectors (R, D) and the default's vector (D,) of one layer. (This is given.)"""
    means = {role: rollouts[role]["mean"][:, layer].mean(0) for role in rollouts}
    default = means.pop("default")
    return torch.stack(list(means.values())), default
