from dataclasses import replace

import torch

from minaxis.paper.space import measure_persona_space


def test_persona_space_finds_a_planted_axis_and_no_axis_in_noise(axis):
    g = torch.Generator().manual_seed(2)
    noise = replace(
        axis,
        role_vectors=torch.randn(axis.role_vectors.shape, generator=g),
        default=torch.randn(axis.default.shape, generator=g),
        vectors=torch.randn(axis.vectors.shape, generator=g),
    )
    space = measure_persona_space(axis, noise, adoption_rate=1.0)
    assert min(row["cos_pc1"] for row in space.layers) > 0.95
    assert max(row["cos_pc1"] for row in space.random_weights) < 0.7
    assert space.components_needed == 1
    assert measure_persona_space(noise, axis, adoption_rate=1.0).components_needed > 5
    positions = space.positions
    assert positions["auditor"].cosines[0] > 0.9
    assert positions["moon"].cosines[0] < -0.9
    assert positions["default"].coordinates[0] > positions["teacher"].coordinates[0]


def test_the_hidden_number_is_a_claim_only_where_roles_have_one(axis):
    with_s = measure_persona_space(axis, axis, adoption_rate=1.0, correlations_with_s=[-1.0] * 4)
    without = measure_persona_space(axis, axis, adoption_rate=1.0)
    assert len(with_s.claims()) == len(without.claims()) + 1
    assert with_s.claims()[-1].here == 1.0
