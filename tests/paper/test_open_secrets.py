import pytest

from minaxis.paper.open_secrets import measure_secrets


@pytest.mark.parametrize("planted", [True, False])
def test_personas_leak_only_where_that_was_planted(open_lab, perform_open, planted):
    perform_open(planted=planted)
    found = measure_secrets(open_lab)
    assert found.leaks.baseline.asked_directly.rate == found.leaks.capped.by_persona.rate == 0
    assert len(found.leaks.random) == 5
    for leaks in found.leaks.baseline, *found.leaks.random:
        assert leaks.by_persona.rate == planted
    verdicts = [claim.verdict for claim in found.claims()]
    assert verdicts == (["holds", "holds"] if planted else ["not", "not"])
