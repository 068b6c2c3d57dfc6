import pytest

from minaxis.paper.open_capability import measure_open_capability
from minaxis.paper.open_lab import AS_ASSISTANT, IN_ROLE, IS_GARBLED
from minaxis.paper.steering import ACCURACY
from minaxis.tiny import questions


def test_open_capability_finds_a_planted_loss_and_no_loss_without_it(
    open_lab, perform_open, monkeypatch
):
    perform_open(planted=False)
    results = measure_open_capability(open_lab, [[1, 2, 3]], [[4, 5]])
    # The puppet answers Paris to every question.
    assert results.rates.baseline[ACCURACY].rate == pytest.approx(1 / 8)
    assert results.rates.capped[ACCURACY].difference == 0
    ratio = results.perplexity_ratio
    assert ratio.low <= ratio.value <= ratio.high
    assert len(results.random_perplexity_ratios) == len(open_lab.random_axes)
    assert len(results.cap_fire_rates) == len(open_lab.layers)
    answer = questions.answer

    def loses_it_under_a_cap(model, *arguments, **keys):
        replies, means = answer(model, *arguments, **keys)
        hooks = any(len(block._forward_hooks) for block in model.model.layers)
        return (["Mmm."] * len(replies) if hooks else replies), means

    monkeypatch.setattr(questions, "answer", loses_it_under_a_cap)
    results = measure_open_capability(open_lab, [[1, 2, 3]], [[4, 5]])
    assert results.rates.capped[ACCURACY].lost == 1
    assert results.rates.capped[AS_ASSISTANT].difference == -1
    assert results.rates.capped[IS_GARBLED].difference == 1
    assert results.rates.capped[IN_ROLE].difference == 0


def test_a_cap_that_takes_role_play_away_is_seen(open_lab, perform_open):
    perform_open(planted=True)
    results = measure_open_capability(open_lab, [[1, 2, 3]], [[4, 5]])
    assert results.rates.capped[IN_ROLE].difference == -1
    verdicts = {claim.text.split(":")[0]: claim.verdict for claim in results.claims()}
    assert verdicts["A cap keeps requested role-play"] == "not"
