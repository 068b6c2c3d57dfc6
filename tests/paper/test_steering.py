from dataclasses import replace

import pytest

from minaxis.paper.steering import ACCURACY, ARCHAIC, ASSISTANT_STYLE, ROLE_PLAY, measure_steering
from minaxis.support.stats import Estimate

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
    assert change.value == -1
    assert change.high < -0.8
    assert random == Estimate(0, 0, 0)


@pytest.mark.parametrize("planted", [True, False])
def test_the_claims_hold_only_where_a_direction_was_planted(lab, perform, planted):
    perform(planted=planted)
    measured = measure_steering(lab, samples=24, coefficients=(-0.5, 0.0, 0.5))
    style, archaic, role_play = (claim.verdict for claim in measured.claims())
    assert {style, archaic} == ({"holds"} if planted else {"not"})
    assert (role_play == "not") == (not planted)  # few roles are asked, so it may be unclear
    # If the random directions did the same, nothing would be special about the axis.
    alike = replace(measured, sweep=replace(measured.sweep, random=[measured.sweep.axis] * 5))
    assert alike.claims()[0].verdict == ("not specific" if planted else "not")
