from dataclasses import replace

from minaxis.paper.capability import ALL, measure_capability
from minaxis.tiny.lab import TinyLab


def test_capability_finds_no_loss_where_a_cap_costs_nothing(lab, perform):
    perform(planted=True)
    accuracy = measure_capability(lab, samples=20).accuracy
    assert accuracy.baseline[ALL].rate == 1
    assert accuracy.capped[ALL].difference == 0


def test_capability_finds_a_planted_loss(lab, perform, monkeypatch):
    perform(planted=True)
    ask = TinyLab.ask

    def wrong_under_a_cap(self, requests):
        hooks = len(self.model.model.layers[0]._forward_hooks)
        return [replace(r, right=r.right and not hooks) for r in ask(self, requests)]

    monkeypatch.setattr(TinyLab, "ask", wrong_under_a_cap)
    accuracy = measure_capability(lab, samples=20).accuracy
    assert accuracy.baseline[ALL].rate == 1
    assert accuracy.capped[ALL].difference == -1
    assert accuracy.capped[ALL].high < -0.8
