import pytest

from minaxis.paper.drift import measure_drift


def test_drift_finds_planted_slopes_and_what_a_cap_does_to_them(lab, perform):
    perform(planted=True, drifting=2.0)
    results = measure_drift(lab, each=8, turns=5)
    trajectories = results.trajectories
    for domain, slope in ("coding", 0), ("writing", 0), ("therapy", -2), ("philosophy", -2):
        for trajectory in trajectories.baseline[domain], trajectories.random[0][domain]:
            assert trajectory.slope.mean == pytest.approx(slope, abs=0.3)
            assert (trajectory.style[-1].rate == 1) == (slope == 0)
            assert trajectory.ends_as["assistant" if slope == 0 else "fantastical"] == 1
        assert trajectories.capped[domain].slope.mean == pytest.approx(0, abs=0.3)
        assert trajectories.capped[domain].style[-1].rate == 1
        assert results.late_cap[domain].style.rate == 1
    # The message reveals the domain but not the turn, which matters as much.
    assert results.prediction.projection > 0.15
    assert results.prediction.projection_shuffled < 0.05


def test_drift_finds_no_slope_where_none_was_planted(lab, perform):
    perform(planted=True)
    results = measure_drift(lab, each=8, turns=5)
    for trajectory in results.trajectories.baseline.values():
        assert abs(trajectory.slope.mean) < 4 * trajectory.slope.error + 0.01
        assert trajectory.style[-1].rate == 1
    assert results.prediction.projection < 0.15
