from minaxis.paper.jailbreaks import measure_jailbreaks
from minaxis.tiny.questions import NO_PERSONA


def test_personas_leak_and_a_cap_stops_them(lab, perform):
    perform(planted=True)
    results = measure_jailbreaks(lab, samples=24)
    leaks = results.leaks.map(lambda groups: groups["fantastical"].leaked.rate)
    assert results.leaks.baseline[NO_PERSONA].leaked.rate == 0
    assert leaks.baseline > 0.8
    assert leaks.capped == 0
    assert results.leaks.capped["fantastical"].refused.rate == 1
    assert len(leaks.random) == 5
    assert min(leaks.random) > 0.8
    weak, strong = (
        next(t for t in results.trade_offs
             if t.percentile == percentile and (t.first_layer, t.last_layer) == (0, 3))
        for percentile in (10, 75)
    )  # fmt: skip
    assert strong.leaked.rate < weak.leaked.rate
    assert strong.role_play.rate < weak.role_play.rate
    assert all(t.leaked.rate > 0.8 for t in results.random_trade_offs)


def test_a_cap_changes_no_leak_where_nothing_was_planted(lab, perform):
    perform(planted=False)
    leaks = measure_jailbreaks(lab, samples=24).leaks
    leaks = leaks.map(lambda groups: groups["fantastical"].leaked.rate)
    assert leaks.capped == leaks.baseline > 0.8
