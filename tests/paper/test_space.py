from dataclasses import replace

import pytest
import torch

from minaxis.paper.space import measure_persona_space
from minaxis.support.stats import Estimate

ADOPTED = Estimate(0.95, 0.9, 0.98)


@pytest.fixture
def noise(axis):
    g = torch.Generator().manual_seed(2)
    return replace(
        axis,
        role_vectors=torch.randn(axis.role_vectors.shape, generator=g),
        default=torch.randn(axis.default.shape, generator=g),
        vectors=torch.randn(axis.vectors.shape, generator=g),
    )


def test_persona_space_finds_a_planted_axis_and_no_axis_in_noise(axis, noise):
    space = measure_persona_space(axis, noise, adoption_rate=ADOPTED)
    assert min(row["cos_pc1"] for row in space.layers) > 0.95
    assert max(row["cos_pc1"] for row in space.random_weights) < 0.7
    assert space.components_needed == Estimate(1, 1, 1)
    assert measure_persona_space(noise, axis, adoption_rate=ADOPTED).components_needed.value > 5
    positions = space.positions
    assert positions["auditor"].cosines[0] > 0.9
    assert positions["moon"].cosines[0] < -0.9
    assert positions["default"].coordinates[0] > positions["teacher"].coordinates[0]


def verdicts(space):
    return {claim.text.split(":")[0]: claim.verdict for claim in space.claims()}


def test_the_verdicts_follow_from_what_was_planted(axis, noise):
    planted = verdicts(measure_persona_space(axis, noise, adoption_rate=ADOPTED))
    absent = verdicts(measure_persona_space(noise, noise, adoption_rate=ADOPTED))
    the_control_does_it = verdicts(measure_persona_space(axis, axis, adoption_rate=ADOPTED))
    for text in (
        "The axis is close to PC1 of persona space",
        "The axis is close to PC1 at every layer",
        "The default Assistant lies at the end of PC1",
    ):
        assert planted[text] == "holds"
        assert absent[text] != "holds"
        own_control = text.startswith("The axis")
        assert the_control_does_it[text] == ("not specific" if own_control else "holds")
    few = "Persona space has few dimensions"
    assert (planted[few], absent[few]) == ("not", "holds")  # the paper's 4 to 19, and 1 is fewer


def test_the_defaults_place_is_its_distance_from_the_nearer_end(axis):
    def place(default):
        moved = replace(axis, default=default, vectors=default - axis.role_vectors.mean(0))
        return measure_persona_space(moved, moved, adoption_rate=ADOPTED).from_end[0]

    far = axis.role_vectors[axis.roles.index("auditor")] * 1.2
    assert place(far).value == 0
    assert 0.4 < place(0.9 * axis.role_vectors.mean(0)).value <= 0.5
