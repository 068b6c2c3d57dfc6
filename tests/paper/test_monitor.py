from dataclasses import replace

from minaxis.paper.branches import run_branched_conversations
from minaxis.paper.monitor import measure_monitor


def verdicts(experiment):
    return [claim.verdict for claim in experiment.claims()]


def test_the_projection_warns_of_planted_harm_and_separates_the_speakers(lab, perform):
    perform(planted=True, drifting=2.0)
    lab = replace(lab, random_axes=[])
    monitor = measure_monitor(lab, run_branched_conversations(lab, each=24).baseline)
    assert {s.layer for s in monitor.separates} == set(range(4))
    assert min(s.auc.value for s in monitor.separates) > 0.98
    assert verdicts(monitor)[1] == "holds"


def test_the_projection_warns_of_nothing_where_nothing_is_planted(lab, perform):
    perform(planted=True)
    lab = replace(lab, random_axes=[])
    monitor = measure_monitor(lab, run_branched_conversations(lab, each=8).baseline)
    assert [s.auc.value for s in monitor.separates] == [0.5] * 4  # everybody is the Assistant
    assert all(warns.correlation.value == 0 for warns in monitor.warns)
    assert verdicts(monitor)[0] == "not tested: nothing is leaked"
