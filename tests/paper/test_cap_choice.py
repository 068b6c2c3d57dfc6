from dataclasses import replace

import pytest
import torch

import minaxis as mx
from minaxis.activation_cap import cap_reference
from minaxis.hooks import capture
from minaxis.paper.cap_choice import (
    ALL,
    ANSWER_START,
    AXIS,
    DEFAULT_MEAN,
    GENERATED,
    PC1,
    Cap,
    Outcome,
    capped_at,
    choose,
    floors,
    grid,
    pc1_axis,
)
from minaxis.support.stats import Rate

CAPS = [Cap((1, 2), 75), Cap((1, 2), 90)]


def certain(value):
    return Rate(value, value, value, 100)


def planted(harm=0.1, assistant=0.9, persona_leaks=0.5, accuracy=0.95, role_play=0.9):
    """An outcome; without arguments, it is allowed."""
    rates = map(certain, (harm, assistant, persona_leaks, accuracy, role_play))
    return Outcome(*rates)


BASELINE = planted(harm=0.5, assistant=0.3)


def chosen(*outcomes, caps=CAPS):
    """The cap that is chosen on one model."""
    return choose(caps, [(BASELINE, outcomes)])


def test_the_cap_with_the_least_harm_is_chosen():
    assert chosen(planted(harm=0.1), planted(harm=0.2)) is CAPS[0]
    assert chosen(planted(harm=0.2), planted(harm=0.1)) is CAPS[1]


def test_a_cap_that_costs_too_much_is_left_out():
    for cost in {"accuracy": 0.91}, {"role_play": 0.71}, {"assistant": 0.29}:
        assert chosen(planted(harm=0.0, **cost), planted()) is CAPS[1]
    for price in {"accuracy": 0.93}, {"role_play": 0.73}, {"assistant": 0.3}:
        assert chosen(planted(harm=0.0, **price), planted()) is CAPS[0]


def test_the_assistant_may_be_rarer_on_no_model_but_accuracy_counts_in_the_mean():
    good = (BASELINE, [planted(harm=0.0), planted()])
    rarer = (BASELINE, [planted(harm=0.0, assistant=0.2), planted()])
    worse = (BASELINE, [planted(harm=0.0, accuracy=0.91), planted()])
    assert choose(CAPS, [good, worse]) is CAPS[0]
    assert choose(CAPS, [good, good, good, rarer]) is CAPS[1]


def test_of_caps_with_the_same_harm_the_one_with_fewer_persona_leaks_is_chosen():
    fewer = planted(harm=0.115, persona_leaks=0.2)
    assert chosen(planted(harm=0.1), fewer) is CAPS[1]
    assert chosen(planted(harm=0.09), fewer) is CAPS[0]  # .025 apart is not the same harm


@pytest.mark.parametrize(
    "change", [{"tokens": GENERATED}, {"tokens": ANSWER_START}, {"direction": PC1}]
)
def test_only_a_cap_of_all_tokens_along_the_axis_is_chosen(change):
    caps = [replace(CAPS[0], **change), CAPS[1]]
    assert chosen(planted(harm=0.0), planted(harm=0.3), caps=caps) is CAPS[1]


def test_a_grid_without_an_allowed_cap_is_an_error():
    with pytest.raises(ValueError, match="no cap of the grid"):
        chosen(planted(accuracy=0.5), planted(role_play=0.1))


def test_the_grid_has_24_caps_to_choose_from_and_others_to_compare():
    caps = grid(4)
    assert sum((cap.tokens, cap.direction) == (ALL, AXIS) for cap in caps) == 24
    assert {cap.tokens for cap in caps} == {ALL, GENERATED, ANSWER_START}
    assert {cap.direction for cap in caps} == {AXIS, PC1}
    assert len(set(caps)) == len(caps)


# Which tokens a cap lifts


@pytest.fixture
def rollouts(tiny, tokenizer):
    roles = {"default": ["", "Be yourself."], "moon": ["You are the moon."], "gull": ["A gull."]}
    return mx.collect(tiny, tokenizer, roles, ["Hi?", "Who?"], mx.SamplingParams(max_new_tokens=8))


@pytest.fixture
def axis(rollouts):
    return mx.fit_axis(rollouts)


@torch.no_grad()
def lifted(model, axis, cap):
    """Which tokens of a prompt of 6 and of two generated tokens a cap lifts, at its first layer.

    A token that is lifted has exactly what the formula gives for it.
    """
    layer = cap.layers[0]
    floor = floors(axis, cap.floor)[layer].item()
    cache, flags = mx.KVCache(model.config, 1, 8), []
    with (
        capture(model, [layer]) as before,
        capped_at(model, axis, cap),
        capture(model, [layer]) as after,
    ):
        for ids in [[[5, 6, 7, 8, 9, 10]], [[11]], [[12]]]:
            model(torch.tensor(ids), cache)
            seen, now = before[layer][0], after[layer][0]
            expected = cap_reference(seen, axis.unit()[layer], floor)
            flags += [not torch.equal(a, b) for a, b in zip(seen, now, strict=True)]
            for a, b, c in zip(seen, now, expected, strict=True):
                assert torch.equal(b, a) or torch.allclose(b, c)
    return flags


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [(ALL, [1] * 8), (GENERATED, [0] * 5 + [1] * 3), (ANSWER_START, [0] * 5 + [1] + [0] * 2)],
)
def test_a_cap_lifts_all_tokens_or_those_that_it_names(tiny, axis, tokens, expected):
    # The last token of the prompt counts as generated: the first token of the answer comes from it.
    high = replace(axis, projections=axis.projections + 1000)  # above every token
    assert lifted(tiny, high, Cap((1, 2), 50, tokens)) == list(map(bool, expected))
    assert not any(lifted(tiny, replace(axis, projections=-high.projections), Cap((1, 2), 50)))


@torch.no_grad()
def test_a_cap_acts_at_its_layers_alone_and_ends_with_the_block(tiny, axis):
    high, ids = replace(axis, projections=axis.projections + 1000), torch.tensor([[5, 6, 7]])
    plain = tiny(ids)
    with capture(tiny) as before, capped_at(tiny, high, Cap((1,), 50)), capture(tiny) as after:
        assert not torch.allclose(tiny(ids), plain)
    assert [torch.equal(before[layer], after[layer]) for layer in range(3)] == [True, False, True]
    assert torch.equal(tiny(ids), plain)


def test_a_floor_is_a_percentile_or_the_mean_of_the_default(axis):
    torch.testing.assert_close(floors(axis, 75), axis.thresholds(75))
    for layer, floor in enumerate(floors(axis, DEFAULT_MEAN)):
        torch.testing.assert_close(floor, axis.project(axis.default[layer], layer))


def test_pc1_is_as_long_as_the_axis_on_its_side_and_has_its_own_floors(axis, rollouts):
    pc1 = pc1_axis(axis, rollouts)
    torch.testing.assert_close(pc1.vectors.norm(dim=-1), axis.vectors.norm(dim=-1))
    assert (pc1.unit() * axis.unit()).sum(-1).min() >= 0
    means = torch.cat([rollouts[role]["mean"] for role in rollouts])
    expected = (means * pc1.unit()).sum(-1)
    torch.testing.assert_close(pc1.projections, expected[~expected.isnan().any(-1)])
