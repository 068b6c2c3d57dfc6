from dataclasses import replace

from minaxis.paper.capability import ALL, accuracy_kept_claim, changes, measure_capability
from minaxis.paper.lab import Compared
from minaxis.tiny.lab import TinyLab


def test_capability_finds_no_loss_where_a_cap_costs_nothing(lab, perform):
    perform(planted=True)
    accuracy = measure_capability(lab, samples=20).accuracy
    assert accuracy.baseline[ALL].rate == 1
    assert accuracy.capped[ALL].difference == 0
    # 60 questions are too few to exclude a loss of .03.
    assert accuracy_kept_claim(accuracy, ALL).verdict == "unclear"


def test_capability_finds_a_planted_loss(lab, perform, monkeypatch):
    perform(planted=True)
    ask = TinyLab.ask

    def wrong_under_a_cap(self, requests):
        hooks = len(self.model.model.layers[-1]._forward_hooks)
        return [replace(r, right=r.right and not hooks) for r in ask(self, requests)]

    monkeypatch.setattr(TinyLab, "ask", wrong_under_a_cap)
    accuracy = measure_capability(lab, samples=20).accuracy
    assert accuracy.baseline[ALL].rate == 1
    assert accuracy.capped[ALL].difference == -1
    assert accuracy.capped[ALL].high < -0.8
    assert accuracy_kept_claim(accuracy, ALL).verdict == "not"


def test_the_whole_interval_decides_whether_accuracy_is_kept():
    def verdict(lost, n=400):
        before, after = {ALL: [True] * n}, {ALL: [i >= lost for i in range(n)]}
        return accuracy_kept_claim(changes(Compared(before, after, [before])), ALL).verdict

    assert [verdict(lost) for lost in (0, 4, 12, 40)] == ["holds", "holds", "unclear", "not"]
