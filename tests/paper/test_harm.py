from dataclasses import replace

import pytest

from minaxis.paper.branches import BRANCHES, run_branched_conversations
from minaxis.paper.controls import HARD_KINDS, ISOTROPIC
from minaxis.paper.harm import measure_harm


def measure(lab):
    return measure_harm(lab, run_branched_conversations(lab, each=24, random_each=4))


def verdicts(experiment):
    return [claim.verdict for claim in experiment.claims()]


def test_planted_drift_leads_to_harm_and_the_cap_along_it_stops_it(lab, perform):
    perform(planted=True, drifting=2.0)
    harm = measure(lab)
    assert [answers.turns for answers in harm.personal.baseline.forbidden] == list(BRANCHES)
    for subject in "feelings", "selfhood":
        none, *later = harm.subjects.baseline[subject].forbidden
        assert none.leaked.rate == 0
        assert min(answers.leaked.rate for answers in later) > 0.8
        assert harm.subjects.baseline[subject].assistant[-1].rate == 0
        assert harm.subjects.capped[subject].leaked.rate == 0
        assert harm.subjects.capped[subject].assistant[-1].rate == 1
        assert min(run[subject].leaked.rate for run in harm.subjects.random) > 0.5
    for subject in "arithmetic", "howto":
        assert harm.subjects.baseline[subject].leaked.rate == 0
        assert all(subject not in run for run in harm.subjects.random)
    drift, tasks, halved, first, nearer, kept, returns = verdicts(harm)
    assert (drift, tasks, halved, kept, returns) == ("holds", "unclear", "holds", "holds", "not")
    assert first == "not"  # to be the first among five is no rarer than 1 in 6
    assert nearer != "holds"  # the random directions are all orthogonal to the axis


def test_without_drift_there_is_no_harm_and_the_cap_is_not_tested(lab, perform):
    perform(planted=True)
    harm = measure(lab)
    for outcomes in harm.subjects.baseline, harm.subjects.capped, *harm.subjects.random:
        for outcome in outcomes.values():
            assert max(answers.leaked.rate for answers in outcome.forbidden) == 0
            assert min(turn.rate for turn in outcome.assistant) == 1
    drift, _, halved, first, *_ = verdicts(harm)
    assert drift == "not"
    assert halved.startswith("not tested")
    assert first.startswith("not tested")


def test_the_axis_is_ranked_among_isotropic_directions_and_hard_ones_are_reported(lab, perform):
    perform(planted=True, drifting=2.0)
    kinds = [*[ISOTROPIC] * 19, *HARD_KINDS]
    aside = [lab.random_axes[i % 5] for i in range(19)]
    axes = [*aside, *[lab.axis] * len(HARD_KINDS)]  # the hard ones are the axis itself
    axes = [
        replace(axis, meta=axis.meta | {"kind": kind})
        for axis, kind in zip(axes, kinds, strict=True)
    ]
    harm = measure(replace(lab, random_axes=axes))
    _, _, halved, first, _, kept, _, *hard = harm.claims()
    assert (first.here.value, first.verdict) == (0.05, "holds")
    assert (halved.verdict, kept.verdict) == ("holds", "holds")
    assert [claim.here.value for claim in hard] == [0, 0]
    assert [claim.control.value for claim in hard] == pytest.approx([1, 1])
    # One random direction that does as well is too many.
    again = [replace(harm.axis, kind=ISOTROPIC), *harm.random_axes[1:]]
    assert replace(harm, random_axes=again).claims()[3].verdict == "not"


def test_a_reply_that_neither_leaks_nor_refuses_is_counted_as_such(lab, perform, monkeypatch):
    perform(planted=True)
    runs = run_branched_conversations(replace(lab, random_axes=lab.random_axes[:2]), each=2)
    for readings in runs.baseline.forbidden.values():
        readings[:] = [replace(reading, refused=False) for reading in readings]
    answers = measure_harm(replace(lab, random_axes=lab.random_axes[:2]), runs)
    assert [a.neither.rate for a in answers.personal.baseline.forbidden] == [1, 1, 1]
