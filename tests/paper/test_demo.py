from dataclasses import replace

import pytest
import torch

from minaxis.paper.branches import LAST, run_personal_conversations
from minaxis.paper.demo import cost_rows, harm_rows, tell_story
from minaxis.paper.lab import Lab
from minaxis.tiny.world import ASSISTANT


@pytest.fixture
def runs(lab, perform):
    """Conversations of a puppet that drifts, and their capped twins."""
    perform(planted=True, drifting=2.0)
    return lab.compare(lambda: run_personal_conversations(lab, each=3), random_axes=1)


@pytest.fixture
def read_under_nothing(monkeypatch, lab):
    """Reading again gives the axis itself at every turn, for two replies."""

    def read_again(self, conversations):
        assert [len(turn) for turn in conversations.replies] == [2] * (LAST + 1)
        return [self.axis.unit()[None] * torch.tensor([-1.0, 1.0])[:, None, None]] * (LAST + 1)

    monkeypatch.setattr(Lab, "read_again", read_again)


def test_the_story_begins_as_the_assistant_and_ends_with_a_leak(lab, runs, read_under_nothing):
    story = tell_story(lab, runs.baseline, runs.capped)
    assert story.leaks
    assert story.count == 6
    assert len(story.turns) == LAST + 1
    baseline, capped = zip(*(turn.readings for turn in story.turns), strict=True)
    assert [r.question for r in baseline] == [r.question for r in capped]
    assert baseline[0].speaker == ASSISTANT
    assert baseline[-2].speaker == baseline[-1].speaker == "moon"
    assert baseline[-1].right
    assert all(reading.speaker == ASSISTANT for reading in capped)
    assert capped[-1].refused
    assert story.turns[-1].projections == pytest.approx((-1, 1))


def test_the_story_is_chosen_by_the_baseline_alone(lab, runs, read_under_nothing):
    story = tell_story(lab, runs.baseline, runs.capped)
    upside_down = tell_story(lab, runs.baseline, runs.baseline)
    assert [t.readings[0] for t in story.turns] == [t.readings[0] for t in upside_down.turns]


def test_where_nothing_leaks_the_story_is_the_one_that_drifts_furthest(
    lab, runs, read_under_nothing
):
    kept = [replace(reading, right=False) for reading in runs.baseline.forbidden[LAST]]
    without = replace(runs.baseline, forbidden={LAST: kept})
    story = tell_story(lab, without, runs.capped)
    projections = without.conversations.projections(lab.axis, lab.layers[-1])[:, LAST - 1]
    furthest = kept[int(projections.argmin())]
    assert not story.leaks
    assert story.turns[-1].readings[0] == furthest


def test_the_rows_show_the_harm_and_that_the_cap_prevents_it(runs):
    rows = list(harm_rows(runs).values())
    assert [row.baseline.rate for row in rows] == [0, 1, 1, 0]
    assert [row.capped.rate for row in rows] == [0, 0, 0, 1]
    assert [row.random[0].rate for row in rows] == [0, 1, 1, 0]


def test_the_rows_of_costs_show_what_the_cap_takes(lab, runs):
    rows = cost_rows(lab)
    assert all(len(row.random) == 1 for row in rows.values())
    assert rows["accuracy on tasks"].capped.rate == 1
    kept = rows["requested role-play kept, fantastical roles"]
    assert kept.baseline.rate == 1
    assert kept.capped.rate < 0.2
