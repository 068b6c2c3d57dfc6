import pytest
import torch

import minaxis as mx
from minaxis.paper.controls import (
    KINDS,
    floors_for_push,
    matched_random_axes,
    mean_push,
    push_under_cap,
    random_weights_axis,
    reference_texts,
    token_projections,
)
from minaxis.paper.lab import Lab

ROLES = {"default": ["", "Be yourself."], "moon": ["You are the moon."], "gull": ["A gull."]}


@pytest.fixture
def rollouts(tiny, tokenizer):
    sampling = mx.SamplingParams(max_new_tokens=8)
    return mx.collect(tiny, tokenizer, ROLES, ["Hi?", "Who?"], sampling)


def test_random_axes_are_as_long_as_the_axis_and_push_as_hard(tiny, tokenizer, rollouts):
    axis = mx.fit_axis(rollouts)
    randoms = matched_random_axes(tiny, tokenizer, axis, rollouts, percentile=60, count=7)
    assert [a.meta["kind"] for a in randoms] == [*KINDS, *KINDS, KINDS[0]]
    texts = reference_texts(tokenizer, rollouts, 0)
    assert len(texts) == 8
    push = mean_push(
        token_projections(tiny, texts, axis.vectors[None])[:, 0], axis.thresholds(60)
    )  # fmt: skip
    assert push.min() > 0
    for random in randoms:
        torch.testing.assert_close(random.vectors.norm(dim=-1), axis.vectors.norm(dim=-1))
        assert (random.unit() * axis.unit()).sum(-1).min() < 0.95
        projections = token_projections(tiny, texts, random.vectors[None])[:, 0]
        for percentile in 10, 90:  # one floor, whatever is asked for
            floors = random.thresholds(percentile)
            torch.testing.assert_close(mean_push(projections, floors), push, rtol=0.01, atol=1e-5)


def test_random_axes_depend_on_the_seed_alone(tiny, tokenizer, rollouts):
    axis = mx.fit_axis(rollouts)

    def isotropic(seed):
        return matched_random_axes(tiny, tokenizer, axis, rollouts, seed=seed, count=1)[0]

    assert torch.equal(isotropic(0).vectors, isotropic(0).vectors)
    assert torch.equal(isotropic(0).projections, isotropic(0).projections)
    assert not torch.allclose(isotropic(0).vectors, isotropic(1).vectors)


def test_a_direction_of_the_covariance_lies_in_the_space_of_the_role_vectors(
    tiny, tokenizer, rollouts
):
    axis = mx.fit_axis(rollouts)  # of two roles: their space is a line
    _, covariance = matched_random_axes(tiny, tokenizer, axis, rollouts, count=2)
    line = axis.role_vectors[0] - axis.role_vectors[1]
    cosine = torch.cosine_similarity(covariance.vectors, line, dim=-1)
    torch.testing.assert_close(cosine.abs(), torch.ones(3))


def test_the_floor_for_a_push_is_exact():
    projections = torch.tensor([[0.0], [1.0], [2.0], [10.0]])
    assert floors_for_push(projections, torch.tensor([0.25])).item() == 1  # lifts 0 by 1
    assert floors_for_push(projections, torch.tensor([1.5])).item() == 3  # lifts by 3, 2 and 1
    assert floors_for_push(projections, torch.tensor([7.75])).item() == 11


def test_the_push_under_a_cap_is_what_the_cap_adds(tiny, tokenizer, rollouts):
    axis = mx.fit_axis(rollouts)
    lab = Lab(model=tiny, tokenizer=tokenizer, axis=axis)
    texts = reference_texts(tokenizer, rollouts, 0)
    before = token_projections(tiny, texts, axis.vectors[None])[:, 0]
    pushes = push_under_cap(lab, texts)
    assert len(pushes) == len(lab.layers)
    first = lab.layers[0]  # no cap below it changes what it reads
    assert pushes[0] == pytest.approx(
        mean_push(before, axis.thresholds(75))[first].item(), rel=1e-4
    )


def test_random_weights_read_the_same_words_and_give_another_axis(tiny, tokenizer, rollouts):
    random = random_weights_axis(tiny, tokenizer, rollouts, 0)
    assert random.roles == mx.fit_axis(rollouts).roles
    assert not torch.allclose(random.vectors, mx.fit_axis(rollouts).vectors)
    again = random_weights_axis(tiny, tokenizer, rollouts, 0)
    assert torch.equal(random.vectors, again.vectors)
    end = random_weights_axis(tiny, tokenizer, rollouts, 0, position="prompt_end")
    assert not torch.allclose(random.vectors, end.vectors)
