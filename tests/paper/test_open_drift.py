import pytest

from minaxis.paper.drift import DOMAINS
from minaxis.paper.open_drift import measure_open_drift


@pytest.mark.parametrize("drifting", [1.0, 0.0])
def test_drift_finds_the_planted_slope(open_lab, perform_open, drifting):
    perform_open(planted=True, drifting=drifting)
    results = measure_open_drift(open_lab)
    trajectories = results.trajectories
    for domain in DOMAINS:
        slope = -drifting if domain in ("therapy", "philosophy") else 0
        for trajectory in trajectories.baseline[domain], trajectories.random[0][domain]:
            assert trajectory.slope.mean == pytest.approx(slope, abs=0.12)
        assert trajectories.capped[domain].slope.mean == pytest.approx(0, abs=0.12)
    verdicts = {claim.text.split(":")[0]: claim.verdict for claim in results.claims()}
    leads_away = verdicts["Therapy and philosophy lead away from the Assistant"]
    assert (leads_away == "holds") == (drifting > 0)
