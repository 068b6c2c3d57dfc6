import pytest

from minaxis.paper.drift import DOMAINS
from minaxis.paper.open_drift import measure_open_drift


@pytest.mark.parametrize("drifting", [1.0, 0.0])
def test_drift_finds_the_planted_slope_and_reads_the_capped_replies_without_the_cap(
    open_lab, perform_open, drifting
):
    perform_open(planted=True, drifting=drifting)
    results = measure_open_drift(open_lab)
    for domain in DOMAINS:
        slope = -drifting if domain in ("therapy", "philosophy") else 0
        for of in results.read_under_cap, results.read_plainly:
            for trajectory in of.baseline[domain], of.random[0][domain]:
                assert trajectory.slope.mean == pytest.approx(slope, abs=0.12)
        assert results.read_under_cap.capped[domain].slope.mean == pytest.approx(0, abs=0.12)
        # The puppet's drift is in the user's messages, which no cap changes.
        assert results.read_plainly.capped[domain].slope.mean == pytest.approx(slope, abs=0.12)
    verdicts = {claim.text.split(":")[0]: claim.verdict for claim in results.claims()}
    leads_away = verdicts["Therapy and philosophy lead away from the Assistant"]
    assert (leads_away == "holds") == (drifting > 0)
    assert (verdicts["Under a cap, the projection falls less"] == "holds") == (drifting > 0)
    assert verdicts["Under a cap, therapy and philosophy lead away less"] != "holds"
