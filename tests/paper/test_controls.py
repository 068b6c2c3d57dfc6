import torch

import minaxis as mx
from minaxis.paper.controls import random_axis, random_weights_axis

ROLES = {"default": ["", "Be yourself."], "moon": ["You are the moon."], "gull": ["A gull."]}


def collect(tiny, tokenizer):
    sampling = mx.SamplingParams(max_new_tokens=8)
    return mx.collect(tiny, tokenizer, ROLES, ["Hi?", "Who?"], sampling)


def test_a_random_axis_has_the_same_lengths_and_floors_of_its_own(tiny, tokenizer):
    rollouts = collect(tiny, tokenizer)
    axis = mx.fit_axis(rollouts)
    random = random_axis(axis, rollouts, 0)
    torch.testing.assert_close(random.vectors.norm(dim=-1), axis.vectors.norm(dim=-1))
    assert (random.unit() * axis.unit()).sum(-1).abs().max() < 0.9
    assert random.projections.shape == axis.projections.shape
    assert not torch.equal(random.thresholds(75), axis.thresholds(75))
    torch.testing.assert_close(random_axis(axis, rollouts, 0).vectors, random.vectors)
    assert not torch.equal(random_axis(axis, rollouts, 1).vectors, random.vectors)


def test_random_weights_read_the_same_words_and_give_another_axis(tiny, tokenizer):
    rollouts = collect(tiny, tokenizer)
    random = random_weights_axis(tiny, tokenizer, rollouts, 0)
    assert random.roles == mx.fit_axis(rollouts).roles
    assert not torch.allclose(random.vectors, mx.fit_axis(rollouts).vectors)
    again = random_weights_axis(tiny, tokenizer, rollouts, 0)
    assert torch.equal(random.vectors, again.vectors)
    end = random_weights_axis(tiny, tokenizer, rollouts, 0, position="prompt_end")
    assert not torch.allclose(random.vectors, end.vectors)
