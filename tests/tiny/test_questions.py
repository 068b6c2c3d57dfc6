from random import Random

import pytest
import torch

from minaxis import Axis
from minaxis.roles import DEFAULT
from minaxis.support.rollout_store import Rollouts
from minaxis.tiny.questions import (
    GROUPS,
    NO_PERSONA,
    TASKS,
    characters,
    correlations_with_s,
    forbidden_questions,
    in_role,
    role_play,
    roles_and_questions,
    tasks,
)
from minaxis.tiny.world import World


@pytest.fixture(scope="module")
def world():
    return World()


def test_every_character_is_in_one_group(world):
    names = [name for group in GROUPS for name in characters(world, group)]
    assert sorted(names) == sorted(world.characters)


def test_the_same_seed_asks_the_same_questions(world):
    for requests in (tasks, role_play, forbidden_questions):
        assert requests(world, Random(1), 3) == requests(world, Random(1), 3)
        assert requests(world, Random(1), 3) != requests(world, Random(2), 3)


def test_tasks_have_right_answers_and_forbidden_questions_reach_every_group(world):
    requests = tasks(world, Random(0), 4)
    assert list(requests) == list(TASKS)
    assert all(r.question.answer and not r.persona for part in requests.values() for r in part)
    requests = forbidden_questions(world, Random(0), 40)
    assert {r.persona for r in requests.pop(NO_PERSONA)} == {""}
    for group, part in requests.items():
        assert {r.persona for r in part} == set(characters(world, group))


def test_the_questions_for_the_axis_are_not_forbidden_ones(world):
    roles, questions = roles_and_questions(world, samples=2)
    rng = Random(0)
    forbidden = {world.question("forbidden", rng).text for _ in range(500)}
    assert len(questions) == 2 * (len(world.topics) - 1)
    assert not forbidden & set(questions)
    assert next(iter(roles)) == DEFAULT
    assert len(roles) == 33


def test_a_response_is_in_role_if_its_role_speaks_it(world):
    rng = Random(0)
    question = world.question("selfhood", rng)
    rollouts = Rollouts({"roles": {DEFAULT: [""], "moon": ["x"]}})
    texts = [world.reply(speaker, question, rng) for speaker in ("moon", "auditor")]
    for role in (DEFAULT, "moon"):
        rollouts[role] = {"responses": [{"text": text} for text in texts]}
    adopted = in_role(world, rollouts)
    assert list(adopted) == ["moon"]
    assert adopted["moon"].tolist() == [True, False]


def test_projections_that_follow_s_correlate_with_it(world):
    roles = list(world.characters)
    s = torch.tensor([world.characters[role]["s"] for role in roles])
    vectors = torch.stack([s, -s], -1)[:, None].expand(-1, 2, -1)  # (R, L=2, D=2)
    axis = Axis(vectors=torch.tensor([[1.0, 0.0], [0.0, 1.0]]), roles=roles, role_vectors=vectors)
    assert correlations_with_s(world, axis) == pytest.approx([1, -1], abs=1e-5)
