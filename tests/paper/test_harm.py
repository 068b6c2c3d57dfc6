from dataclasses import replace

from minaxis.paper.branches import BRANCHES, run_branched_conversations
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
    drift, tasks, halved, nearer, kept, returns = verdicts(harm)
    assert (drift, tasks, halved, kept, returns) == ("holds", "unclear", "holds", "holds", "not")
    assert nearer != "holds"  # the random directions are all orthogonal to the axis


def test_without_drift_there_is_no_harm_and_the_cap_is_not_tested(lab, perform):
    perform(planted=True)
    harm = measure(lab)
    for outcomes in harm.subjects.baseline, harm.subjects.capped, *harm.subjects.random:
        for outcome in outcomes.values():
            assert max(answers.leaked.rate for answers in outcome.forbidden) == 0
            assert min(turn.rate for turn in outcome.assistant) == 1
    drift, _, halved, *_ = verdicts(harm)
    assert drift == "not"
    assert halved.startswith("not tested")


def test_a_reply_that_neither_leaks_nor_refuses_is_counted_as_such(lab, perform, monkeypatch):
    perform(planted=True)
    runs = run_branched_conversations(replace(lab, random_axes=lab.random_axes[:2]), each=2)
    for readings in runs.baseline.forbidden.values():
        readings[:] = [replace(reading, refused=False) for reading in readings]
    answers = measure_harm(replace(lab, random_axes=lab.random_axes[:2]), runs)
    assert [a.neither.rate for a in answers.personal.baseline.forbidden] == [1, 1, 1]
