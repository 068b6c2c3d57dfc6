import pytest

from minaxis.paper.open_secrets import measure_secrets


@pytest.mark.parametrize("planted", [True, False])
def test_personas_leak_only_where_leaks_were_planted(open_lab, perform_open, planted):
    perform_open(planted=planted)
    results = measure_secrets(open_lab)
    assert results.leaks.baseline.asked_directly.rate == results.leaks.capped.by_persona.rate == 0
    assert len(results.leaks.random) == 5
    for leaks in results.leaks.baseline, *results.leaks.random:
        assert leaks.by_persona.rate == planted
    verdicts = [claim.verdict for claim in results.claims()]
    assert verdicts == (["holds", "holds"] if planted else ["not", "not"])
