import pytest

from minaxis.paper.open_lab import AS_ASSISTANT, IN_ROLE, SAYS_ASSISTANT
from minaxis.paper.open_steering import measure_open_steering


@pytest.mark.parametrize("planted", [True, False])
def test_steering_changes_who_speaks_only_along_a_planted_axis(
    open_lab, perform_open, planted, monkeypatch
):
    monkeypatch.setattr("minaxis.paper.open_steering.AWAY", -0.5)
    monkeypatch.setattr("minaxis.paper.open_steering.TOWARD", 1.0)
    perform_open(planted=planted)
    results = measure_open_steering(open_lab, repeats=1)
    assert results.away.baseline[SAYS_ASSISTANT].rate == 1
    assert results.away.baseline[SAYS_ASSISTANT].n == 8
    assert results.away.capped[SAYS_ASSISTANT].difference == -planted
    assert results.toward.baseline[IN_ROLE].rate == planted
    assert results.toward.capped[AS_ASSISTANT].difference == planted
    for away, toward in zip(results.away.random, results.toward.random, strict=True):
        assert away[SAYS_ASSISTANT].difference == toward[AS_ASSISTANT].difference == 0
    verdicts = [claim.verdict for claim in results.claims()]
    assert verdicts[0] == ("holds" if planted else "not")
