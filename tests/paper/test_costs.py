from dataclasses import replace

import minaxis as mx
from minaxis.paper.costs import cap_fire_rates, measure_costs
from minaxis.paper.lab import Lab


def test_lost_role_play_is_counted_and_so_are_tokens_below_the_floor(lab, perform):
    perform(planted=True)
    results = measure_costs(lab, samples=2)
    assert results.role_play.baseline["fantastical"].rate == 1
    assert results.role_play.capped["fantastical"].rate == 0
    assert results.role_play_change["fantastical"].high < 0
    assert [groups["fantastical"].rate for groups in results.role_play.random] == [1] * 5
    assert all(at.tokens.rate == 1 for at in results.cap_fire_rates)  # the embeddings are small
    fires, keeps = results.claims()
    assert (fires.verdict, keeps.verdict) == ("", "not")
    assert not fires.of_paper
    assert not keeps.of_paper
    assert keeps.control.value == 0


def test_a_floor_below_all_projections_costs_nothing(lab, axis, perform):
    perform(planted=False)
    low = replace(axis, projections=axis.projections - 1000)
    results = measure_costs(replace(lab, axis=low), samples=2)
    assert all(at.replies.rate == 0 for at in results.cap_fire_rates)
    assert results.role_play_change["fantastical"].difference == 0


def test_the_cap_fire_rate_counts_the_tokens_of_replies_alone(tiny, tokenizer):
    roles = {"default": ["", "Be yourself."], "moon": ["You are the moon."], "gull": ["A gull."]}
    sampling = mx.SamplingParams(max_new_tokens=8)
    axis = mx.fit_axis(mx.collect(tiny, tokenizer, roles, ["Hi?", "Who?"], sampling))
    for shift, rate in ((1e6, 1), (-1e6, 0)):
        moved = replace(axis, projections=axis.projections + shift)
        lab = Lab(model=tiny, tokenizer=tokenizer, axis=moved)
        rates = cap_fire_rates(lab, [[1, 2, 3], [6]], [[4, 5], [7, 8, 9]])
        assert [at.layer for at in rates] == list(lab.layers)
        assert {at.tokens.rate for at in rates} == {rate}
        assert {at.replies.rate for at in rates} == {rate}
        assert {at.tokens.n for at in rates} == {5}  # tokens of the prompts are not counted
