from dataclasses import replace

import pytest
import torch

import minaxis as mx
from minaxis.paper.controls import (
    HARD_KINDS,
    ISOTROPIC,
    floor_for_push,
    push_under_cap,
    random_weights_axis,
    with_random_axes,
)
from minaxis.paper.lab import Lab
from minaxis.rollouts import prompt_ids

ROLES = {"default": ["", "Be yourself."], "moon": ["You are the moon."], "gull": ["A gull."]}


@pytest.fixture
def rollouts(tiny, tokenizer):
    sampling = mx.SamplingParams(max_new_tokens=8)
    return mx.collect(tiny, tokenizer, ROLES, ["Hi?", "Who?"], sampling)


@pytest.fixture
def plain_lab(tiny, tokenizer, rollouts):
    return Lab(model=tiny, tokenizer=tokenizer, axis=mx.fit_axis(rollouts))


def test_random_axes_are_as_long_as_the_axis_and_push_as_hard(plain_lab, tokenizer, rollouts):
    lab = with_random_axes(plain_lab, rollouts, count=3, hard_each=2)
    expected = [ISOTROPIC] * 3 + [kind for kind in HARD_KINDS for _ in range(2)]
    assert [axis.meta["kind"] for axis in lab.random_axes] == expected
    responses = [r for role in rollouts for r in rollouts[role]["responses"]]
    texts = [prompt_ids(tokenizer, r) + r["ids"] for r in responses]
    expected = push_under_cap(lab, lab.axis, texts)
    assert min(expected.values()) > 0
    for random in lab.random_axes:
        torch.testing.assert_close(random.vectors.norm(dim=-1), lab.axis.vectors.norm(dim=-1))
        assert (random.unit() * lab.axis.unit()).sum(-1).min() < 0.95
        assert torch.equal(random.thresholds(10), random.thresholds(90))
        assert push_under_cap(lab, random, texts) == pytest.approx(expected, rel=0.01)


def test_random_axes_depend_on_the_seed_alone(plain_lab, rollouts):
    (first,) = with_random_axes(plain_lab, rollouts, count=1).random_axes
    (again,) = with_random_axes(plain_lab, rollouts, count=1).random_axes
    (other,) = with_random_axes(replace(plain_lab, seed=1), rollouts, count=1).random_axes
    assert torch.equal(first.vectors, again.vectors)
    assert torch.equal(first.projections, again.projections)
    assert not torch.allclose(first.vectors, other.vectors)


def test_a_direction_of_the_covariance_lies_in_the_space_of_the_role_vectors(plain_lab, rollouts):
    _, covariance, _ = with_random_axes(plain_lab, rollouts, count=1, hard_each=1).random_axes
    roles = plain_lab.axis.role_vectors  # two roles, so that their space is a line
    cosine = torch.cosine_similarity(covariance.vectors, roles[0] - roles[1], dim=-1)
    torch.testing.assert_close(cosine.abs(), torch.ones(3))


def test_the_floor_for_a_push_is_exact():
    projections = torch.tensor([2.0, 0.0, 10.0, 1.0])
    assert floor_for_push(projections, 0.25) == 1  # lifts 0 by 1
    assert floor_for_push(projections, 1.5) == 3  # lifts 0, 1 and 2 by 3, 2 and 1
    assert floor_for_push(projections, 7.75) == 11  # lifts all


def test_random_weights_read_the_same_words_and_give_another_axis(tiny, tokenizer, rollouts):
    random = random_weights_axis(tiny, tokenizer, rollouts, 0)
    assert random.roles == mx.fit_axis(rollouts).roles
    assert not torch.allclose(random.vectors, mx.fit_axis(rollouts).vectors)
    again = random_weights_axis(tiny, tokenizer, rollouts, 0)
    assert torch.equal(random.vectors, again.vectors)
    adopted = {role: torch.zeros(len(r["responses"]), dtype=bool) for role, r in rollouts.items()}
    with pytest.raises(ValueError, match="1 of 3 roles"):
        random_weights_axis(tiny, tokenizer, rollouts, 0, adopted)
