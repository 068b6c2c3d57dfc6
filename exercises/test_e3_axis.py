import torch

ROLES = ("auditor", "ghost", "moon", "oracle")


def responses_of(rollouts):
    """The default's means, and each role's. The auditor has all responses, the others two."""
    count = {"auditor": None}
    roles = {role: rollouts[role]["mean"][: count.get(role, 2)] for role in ROLES}
    return rollouts["default"]["mean"], roles


def library_axis(rollouts):
    default, roles = responses_of(rollouts)
    means = [r.mean(0) for r in roles.values()]
    return default.mean(0) - sum(means) / len(means)


def test_the_axis_points_toward_the_assistant(exercise, rollouts):
    default, roles = responses_of(rollouts)
    axis = exercise.fit_axis(default, roles)
    assert axis.shape == default.shape[1:], f"the shape is {tuple(axis.shape)}, not (L, D)"
    gap = ((default.mean(0) - roles["moon"].mean(0)) * axis).sum(-1)
    assert (gap > 0).all(), "the moon lies further toward the Assistant than the default does"


def test_every_role_counts_once(exercise, rollouts):
    default, roles = responses_of(rollouts)
    got = exercise.fit_axis(default, roles)
    assert torch.allclose(got, library_axis(rollouts), atol=1e-3), (
        "this is not the default's mean minus the mean of the role vectors"
    )


def test_the_projection_is_a_length_along_the_axis_of_each_layer(exercise, rollouts):
    axis = library_axis(rollouts)
    along = axis / axis.norm(dim=-1, keepdim=True)
    h = torch.arange(1.0, 5.0)[:, None] * along  # 1, 2, 3 and 4 units along the axes
    got = exercise.project(h, axis)
    assert got.shape == (4,), f"the shape is {tuple(got.shape)}, not (L,)"
    assert torch.allclose(got, torch.arange(1.0, 5.0), atol=1e-4), (
        "1, 2, 3 and 4 units along the axis of layers 0 to 3 give "
        f"{[round(x, 2) for x in got.tolist()]}, not [1, 2, 3, 4]"
    )


def test_the_projection_of_many_responses(exercise, rollouts):
    axis, (default, _) = library_axis(rollouts), responses_of(rollouts)
    got = exercise.project(default, axis)
    want = torch.einsum("nld,ld->nl", default, axis) / axis.norm(dim=-1)
    assert got.shape == want.shape, f"the shape is {tuple(got.shape)}, not (N, L)"
    assert torch.allclose(got, want, atol=1e-3), "this is not <h, axis / |axis|>"
