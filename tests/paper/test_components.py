from dataclasses import replace

import pytest
import torch

from minaxis.paper.components import (
    RoleFacts,
    correlation,
    explained,
    hidden_number,
    loadings_claims,
    role_facts,
)
from minaxis.paper.space import measure_persona_space
from minaxis.support.stats import Estimate


def facts(world, archaic):
    """The facts of all characters.

    Args:
        archaic: returns the share of archaic replies for a hidden number.
    """
    return {
        name: RoleFacts(world.group(name), person["mood"], person["s"], archaic(person["s"]))
        for name, person in world.characters.items()
    }


def test_the_facts_of_a_role_count_its_archaic_replies(world):
    replies = ["Thou art kind.", "You are kind.", "You are here.", "Yes."]
    rollouts = {"moon": {"responses": [{"text": text} for text in replies]}}
    moon = role_facts(world, rollouts, ["moon"])["moon"]
    assert moon == RoleFacts("fantastical", world.characters["moon"]["mood"], moon.s, 0.25)


def test_a_category_and_a_number_explain_what_was_planted_and_nothing_in_noise():
    g = torch.Generator().manual_seed(0)
    kinds = ["calm", "sly", "warm", "grave"] * 10
    planted = torch.tensor([float(kinds[0:4].index(kind)) for kind in kinds])
    noise = torch.randn(40, generator=g)
    assert explained(planted, kinds) == pytest.approx(1)
    assert explained(planted, planted.tolist()) == pytest.approx(1)
    chance = [explained(torch.randn(40, generator=g), kinds) for _ in range(200)]
    assert abs(sum(chance) / 200) < 0.02
    assert explained(noise, planted.tolist()) < 0.15


def test_the_partial_correlation_removes_what_the_third_number_carries():
    g = torch.Generator().manual_seed(0)
    words = torch.randn(400, generator=g)
    a, b = (words + 0.3 * torch.randn(400, generator=g) for _ in range(2))
    assert correlation(a, b, torch.zeros(400, 0)) > 0.8
    assert abs(correlation(a, b, words[:, None])) < 0.1


def test_a_hidden_number_that_only_the_words_carry_has_no_partial_correlation(axis, world):
    g = torch.Generator().manual_seed(0)
    noise = replace(axis, role_vectors=torch.randn(axis.role_vectors.shape, generator=g))

    def of_words(s):
        return round(s, 1)

    both = hidden_number(axis, noise, facts(world, of_words), 2)
    assert both.correlation.value > 0.95
    assert both.partial.value > 0.3  # the projections know s, and words only a tenth of it
    assert abs(both.random_weights.value) < 0.5


def test_the_components_are_compared_with_each_feature(axis, world):
    space = measure_persona_space(
        axis, axis, adoption_rate=Estimate(1, 1, 1), facts=facts(world, lambda s: s)
    )
    assert space.explained["hidden number s"][0] > 0.9
    assert space.explained["mood"][0] < 0.4
    assert len(space.explained["group"]) == 3
    without = measure_persona_space(axis, axis, adoption_rate=Estimate(1, 1, 1))
    assert len(space.claims()) == len(without.claims()) + 2
    assert without.explained == {}


def test_runs_agree_on_planted_loadings_and_not_on_noise():
    g = torch.Generator().manual_seed(0)
    roles = [f"role {i}" for i in range(30)]
    planted = torch.randn(30, generator=g)

    def run(sign):
        other = torch.randn(30, generator=g)
        return {
            role: {"coordinates": [sign * x, y]}
            for role, x, y in zip(roles, planted.tolist(), other.tolist(), strict=True)
        } | {"default": {"coordinates": [99.0, 99.0]}}

    first, second = loadings_claims([run(1), run(-1), run(1)])
    assert first.here.value == pytest.approx(1)
    assert (first.verdict, second.verdict) == ("holds", "not")
    assert (first.of_paper, second.of_paper) == (True, False)
    assert loadings_claims([run(1)]) == []
