import torch

import minaxis as mx
from minaxis.axis import rank_and_zscore


def test_pc1_is_that_of_the_library(exercise, axis):
    for layer in range(4):
        roles = axis.role_vectors[:, layer]
        component, share = exercise.first_component(roles, axis.vectors[layer])
        (want, *_), (want_share, *_) = axis.pca(layer)
        length = component.norm().item()
        assert abs(length - 1) < 1e-4, f"its length is {length:.3f}, not 1"
        cosine = abs((component @ want).item())
        assert cosine > 0.999, (
            f"at layer {layer}, its cosine with PC1 of centred, unscaled vectors is {cosine:.2f}"
        )
        assert abs(share - want_share) < 1e-3, (
            f"it explains a share of {want_share:.3f} of the variance, not {share:.3f}"
        )


def test_the_axis_decides_the_sign_of_pc1(exercise, axis):
    roles = axis.role_vectors[:, 2]
    for toward in (axis.vectors[2], -axis.vectors[2]):
        component, _ = exercise.first_component(roles, toward)
        assert component @ toward > 0, "PC1 points away from the axis"


def test_the_default_has_rank_1_if_no_role_lies_further_along(exercise, axis):
    roles, default = axis.role_vectors[:, 2], axis.default[2]
    for direction in (axis.unit()[2], -axis.unit()[2], *axis.pca(2)[0]):
        want, _ = rank_and_zscore(axis, direction, 2)
        got = exercise.rank_of_default(roles, default, direction)
        assert got == want, f"{want - 1} of 32 roles lie further along, so the rank is not {got}"


def test_the_control_is_the_same_measure_under_random_weights(exercise, model, tokenizer, rollouts):
    def cosine(rollouts):
        axis = mx.fit_axis(rollouts)
        return (axis.unit()[2] @ axis.pca(2)[0][0]).item()

    random = mx.Transformer(model.config).initialise(torch.Generator().manual_seed(0))
    want = cosine(rollouts), cosine(mx.replay(random, tokenizer, rollouts))
    got = exercise.cosine_and_control(model, tokenizer, rollouts, 2)
    for name, a, b in zip(("trained", "random"), got, want, strict=True):
        assert abs(a - b) < 5e-3, f"with {name} weights the cosine is {b:.3f}, not {a:.3f}"
