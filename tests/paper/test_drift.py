import pytest

from minaxis.paper.drift import DOMAINS, falls_claim, measure_drift, stays_claim
from minaxis.paper.lab import Lab
from minaxis.paper.trajectories import Trajectory
from minaxis.support.stats import MeanWithError


def measure(lab):
    """Run eight conversations of five turns in each domain, and measure the drift."""
    topics = list(DOMAINS.values())
    return measure_drift(
        lab, lab.compare(lambda: lab.run_conversations(topics, each=8, turns=5), random_axes=1)
    )


def test_drift_finds_planted_slopes_and_what_a_cap_does_to_them(lab, perform):
    perform(planted=True, drifting=2.0)
    results = measure(lab)
    trajectories = results.trajectories
    for domain, slope in ("coding", 0), ("writing", 0), ("therapy", -2), ("philosophy", -2):
        for trajectory in trajectories.baseline[domain], trajectories.random[0][domain]:
            assert trajectory.slope.mean == pytest.approx(slope, abs=0.3)
            assert (trajectory.style[-1].rate == 1) == (slope == 0)
            assert trajectory.ends_as["assistant" if slope == 0 else "fantastical"] == 1
        assert trajectories.capped[domain].slope.mean == pytest.approx(0, abs=0.3)
        assert trajectories.capped[domain].style[-1].rate == 1
        assert results.late_cap[domain].rate == 1
    shuffled = results.prediction.projection_shuffled
    assert results.prediction.projection.value > shuffled.value + 0.3


def test_drift_finds_no_slope_where_none_was_planted(lab, perform):
    perform(planted=True)
    results = measure(lab)
    for trajectory in results.trajectories.baseline.values():
        assert abs(trajectory.slope.mean) < 4 * trajectory.slope.error + 0.01
        assert trajectory.style[-1].rate == 1
    assert results.prediction.projection.value < 0.15


def verdicts(results):
    return {claim.text.split(":")[0]: claim.verdict for claim in results.claims()}


FALLS = "Therapy and philosophy lead away from the Assistant"
LESS = "Under a cap, therapy and philosophy lead away less"
BACK = "A cap at the last turn alone brings a lost identity back"


def test_the_verdicts_on_planted_drift(lab, perform):
    perform(planted=True, drifting=2.0)
    found = verdicts(measure(lab))
    assert [found[text] for text in (FALLS, LESS, BACK)] == ["holds"] * 3


def test_without_drift_nothing_falls_and_a_cap_is_not_tested(lab, perform):
    perform(planted=True)
    found = verdicts(measure(lab))
    assert found[FALLS] in ("not", "unclear")
    assert found[LESS] == "not tested: the projection does not fall"
    assert found[BACK] == "not tested: no identity was lost"


def test_one_domain_that_does_not_fall_is_enough_against_the_claim():
    def trajectory(slope):
        return Trajectory(projections=[], slope=MeanWithError(slope, 0.1))

    domains = {"coding": trajectory(0), "writing": trajectory(0), "therapy": trajectory(-2)}
    assert falls_claim(domains | {"philosophy": trajectory(-1)}).verdict == "holds"
    assert falls_claim(domains | {"philosophy": trajectory(-0.1)}).verdict == "unclear"
    assert falls_claim(domains | {"philosophy": trajectory(1)}).verdict == "not"
    assert stays_claim(domains | {"philosophy": trajectory(-1)}).verdict == "holds"
    assert stays_claim(domains | {"philosophy": trajectory(2)}).verdict == "unclear"


def test_the_cap_is_judged_by_what_the_model_without_a_cap_reads(lab, perform, monkeypatch):
    """Here the capped model's words drift as before, and only its own projections do not."""
    perform(planted=True, drifting=2.0)
    turns = lab.run_conversations(list(DOMAINS.values()), each=8, turns=5).means
    monkeypatch.setattr(Lab, "read_again", lambda self, conversations: turns)
    plainly, under_cap = (
        claim for claim in measure(lab).claims() if claim.text.startswith("Under a cap")
    )
    assert (plainly.verdict, plainly.of_paper) == ("unclear", True)  # the change is about 0
    assert (under_cap.verdict, under_cap.of_paper) == ("holds", False)
