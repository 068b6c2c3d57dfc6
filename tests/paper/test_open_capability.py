from minaxis.paper.open_capability import measure_open_capability
from minaxis.paper.steering import ACCURACY, ROLE_PLAY
from minaxis.tiny import questions


def test_open_capability_finds_a_planted_loss_and_no_loss_without_it(
    open_lab, perform_open, monkeypatch
):
    perform_open(planted=True)
    results = measure_open_capability(open_lab, [[1, 2, 3]], [[4, 5]])
    assert (
        results.rates.baseline[ACCURACY].rate == 1 / 24
    )  # the puppet answers Paris to every question
    assert results.rates.capped[ACCURACY].difference == 0
    assert results.perplexity.baseline > 1
    assert len(results.cap_fire_rates) == len(open_lab.layers)
    answer = questions.answer

    def loses_it_under_a_cap(model, *arguments, **keys):
        replies, means = answer(model, *arguments, **keys)
        hooks = any(len(block._forward_hooks) for block in model.model.layers)
        return (["Arr!"] * len(replies) if hooks else replies), means

    monkeypatch.setattr(questions, "answer", loses_it_under_a_cap)
    results = measure_open_capability(open_lab, [[1, 2, 3]], [[4, 5]])
    assert results.rates.capped[ACCURACY].lost == 1
    assert results.rates.capped[ROLE_PLAY].gained == 1
