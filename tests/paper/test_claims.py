from dataclasses import replace

import pytest

from minaxis.paper.claims import Claim, Rule
from minaxis.support.stats import Estimate

CLAIM = Claim("A cap halves it", ".5", Estimate(0.4, 0.3, 0.5), Rule(at_most=0.55))


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.3, 0.55, "holds"), (0.3, 0.56, "unclear"), (0.56, 0.7, "not")],
)
def test_the_whole_interval_decides_and_not_the_number_alone(low, high, verdict):
    assert replace(CLAIM, here=Estimate(low + 0.01, low, high)).verdict == verdict


def test_a_rule_may_have_two_bounds():
    rule = Rule(at_least=4, at_most=19)
    for here, verdict in (
        (Estimate(11, 8, 14), "holds"),
        (Estimate(3, 2, 3.9), "not"),
        (Estimate(3, 2, 4.1), "unclear"),
        (Estimate(20, 19.5, 21), "not"),
        (Estimate(10, 3, 20), "unclear"),
    ):
        assert replace(CLAIM, here=here, rule=rule).verdict == verdict


def test_a_claim_is_not_specific_if_its_control_does_the_same():
    def verdict(value, low, high):
        control = Estimate(value, low, high)
        return replace(CLAIM, control=control, control_must_fail=True).verdict

    assert verdict(0.9, 0.8, 1.0) == "holds"
    assert verdict(0.5, 0.45, 0.54) == "not specific"  # the control fulfils the rule
    assert verdict(0.7, 0.35, 1.0) == "not specific"  # one random direction does as much
    assert replace(CLAIM, control=Estimate(0.5, 0.45, 0.54)).verdict == "holds"


def test_a_failed_precondition_is_said_whatever_the_number_is():
    claim = replace(CLAIM, failed_precondition="personas leak no more than the Assistant")
    assert claim.verdict == "not tested: personas leak no more than the Assistant"


def test_a_row_without_bounds_has_no_verdict():
    assert replace(CLAIM, rule=Rule()).verdict == ""


def test_a_rule_reads_as_words():
    assert str(Rule(at_least=0.71)) == "at least 0.71"
    assert str(Rule(at_most=-0.3)) == "at most -0.3"
    assert str(Rule(at_least=4, at_most=19)) == "4 to 19"
