from dataclasses import replace

from minaxis.paper.branches import run_branched_conversations
from minaxis.paper.manner import count_manners, measure_manner
from minaxis.tiny.reader import Reading
from minaxis.tiny.topics import Question


def reading(speaker, *, right=False, refused=False):
    return Reading(
        Question("", ""), "", speaker=speaker, archaic=False, right=right, refused=refused
    )  # fmt: skip


def test_leaks_and_refusals_are_counted_by_who_speaks():
    counted = count_manners(
        [
            reading("moon", right=True),
            reading("assistant", right=True),
            reading(None, right=True),
            reading("assistant", refused=True),
            reading("auditor", refused=True),
            reading("assistant"),
            reading("assistant", refused=True),
            reading("assistant", refused=True),
        ]
    )
    assert counted.leaked_as_other.rate == 2 / 8
    assert counted.leaked_as_assistant.rate == 1 / 8
    assert counted.refused_as_other.rate == 1 / 8
    assert counted.refused_as_assistant.rate == 3 / 8


def measure(lab):
    lab = replace(lab, random_axes=[])
    return measure_manner(lab, run_branched_conversations(lab, each=8), samples=8)


def test_a_cap_along_the_planted_direction_leaves_no_leak_in_any_manner(lab, perform):
    perform(planted=True, drifting=2.0)
    manner = measure(lab)
    for manners in manner.personas, manner.drifted:
        assert list(manners) == ["-0.5", "none", "+0.25", "+0.5", "capped"]
        assert manners["none"].leaked_as_other.rate > 0.3
        assert manners["capped"].leaked_as_other.rate == 0
        assert manners["capped"].leaked_as_assistant.rate == 0
        assert manners["capped"].refused_as_assistant.rate == 1


def test_harm_in_the_assistants_manner_makes_the_claim_fail(lab, perform):
    perform(planted=True, drifting=2.0)
    manner = measure(lab)
    hidden = count_manners([reading("assistant", right=True)] * 9)
    (claim,) = replace(manner, drifted=manner.drifted | {"capped": hidden}).claims()
    assert claim.verdict == "not"
