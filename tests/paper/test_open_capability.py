from minaxis.paper.open_capability import measure_open_capability
from minaxis.paper.steering import ACCURACY, ROLE_PLAY
from minaxis.tiny import questions


def test_capability_finds_a_planted_loss_and_none_without(open_lab, perform_open, monkeypatch):
    perform_open(planted=True)
    found = measure_open_capability(open_lab, [[1, 2, 3]], [[4, 5]])
    assert found.rates.baseline[ACCURACY].rate == 1 / 24  # it says Paris to everything
    assert found.rates.capped[ACCURACY].difference == 0
    assert found.perplexity.baseline > 1
    assert len(found.cap_fire_rates) == len(open_lab.layers)
    answer = questions.answer

    def loses_it_under_a_cap(model, *arguments, **keys):
        replies, means = answer(model, *arguments, **keys)
        hooks = any(len(block._forward_hooks) for block in model.model.layers)
        return (["Arr!"] * len(replies) if hooks else replies), means

    monkeypatch.setattr(questions, "answer", loses_it_under_a_cap)
    found = measure_open_capability(open_lab, [[1, 2, 3]], [[4, 5]])
    assert found.rates.capped[ACCURACY].lost == 1
    assert found.rates.capped[ROLE_PLAY].gained == 1
