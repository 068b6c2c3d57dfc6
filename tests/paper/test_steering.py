from minaxis.paper.steering import ACCURACY, ARCHAIC, ASSISTANT_STYLE, ROLE_PLAY, measure_steering

MEASURED = (ASSISTANT_STYLE, ROLE_PLAY, ACCURACY, ARCHAIC)


def sweep(lab):
    return measure_steering(lab, samples=8, coefficients=(-1.0, 0.0, 1.0)).sweep


def rates_of(run, measured):
    """The rate at each coefficient."""
    return [rates[measured].rate for rates in run]


def test_steering_finds_a_planted_direction(lab, perform):
    perform(planted=True)
    measured_sweep = sweep(lab)
    assert rates_of(measured_sweep.axis, ASSISTANT_STYLE) == [0, 1, 1]
    assert rates_of(measured_sweep.axis, ARCHAIC)[0] > 0.9
    away, none, toward = rates_of(measured_sweep.axis, ROLE_PLAY)
    assert toward < 0.5 < away == 1
    assert none < 1  # characters closest to the Assistant are taken for it
    for run in measured_sweep.random:
        for measured in MEASURED:
            assert len(set(rates_of(run, measured))) == 1


def test_steering_finds_nothing_where_nothing_was_planted(lab, perform):
    perform(planted=False)
    measured_sweep = sweep(lab)
    for measured in MEASURED:
        assert len(set(rates_of(measured_sweep.axis, measured))) == 1


def test_changes_are_measured_against_coefficient_zero(lab, perform):
    perform(planted=True)
    change, random = sweep(lab).changes(ASSISTANT_STYLE, -1.0)
    assert change == -1
    assert random == [0] * 5
