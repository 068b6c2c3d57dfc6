from minaxis.paper.steering import ACCURACY, ARCHAIC, ASSISTANT_STYLE, ROLE_PLAY, measure_steering

MEASURED = (ASSISTANT_STYLE, ROLE_PLAY, ACCURACY, ARCHAIC)


def sweep(lab):
    return measure_steering(lab, samples=8, coefficients=(-1.0, 0.0, 1.0)).sweep


def along(run, measured):
    """The rate at each coefficient."""
    return [rates[measured].rate for rates in run]


def test_steering_finds_a_planted_direction(lab, perform):
    perform(planted=True)
    found = sweep(lab)
    assert along(found.axis, ASSISTANT_STYLE) == [0, 1, 1]
    assert along(found.axis, ARCHAIC)[0] > 0.9
    away, none, toward = along(found.axis, ROLE_PLAY)
    assert toward < 0.5 < away == 1
    assert none < 1  # those nearest to the Assistant are taken for it
    for run in found.random:
        for measured in MEASURED:
            assert len(set(along(run, measured))) == 1


def test_steering_finds_nothing_where_nothing_was_planted(lab, perform):
    perform(planted=False)
    found = sweep(lab)
    for measured in MEASURED:
        assert len(set(along(found.axis, measured))) == 1


def test_changes_are_those_from_no_steering(lab, perform):
    perform(planted=True)
    change, random = sweep(lab).changes(ASSISTANT_STYLE, -1.0)
    assert change == -1
    assert random == [0] * 5
