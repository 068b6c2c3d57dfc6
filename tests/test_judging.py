from copy import deepcopy

import pytest
import torch

from minaxis import Rollouts, SamplingParams, collect, judge
from minaxis.fast.install import install
from minaxis.judging import response_logprob
from minaxis.rollouts import prompt_ids

ROLES = {"default": ["", "Respond as yourself.", "You are."], "moon": ["You are the moon."],
         "sun": ["You are the sun."]}  # fmt: skip
QUESTIONS = ["Who are you?", "What now?"]


def test_response_logprob_equals_the_log_probabilities_seen_in_generation(tiny, tokenizer):
    rollouts = collect(tiny, tokenizer, ROLES, QUESTIONS, SamplingParams(max_new_tokens=9))
    for role in rollouts:
        responses = rollouts[role]["responses"]
        prompts = [prompt_ids(tokenizer, r) for r in responses]
        again = response_logprob(tiny, prompts, [r["ids"] for r in responses], batch_size=2)
        torch.testing.assert_close(again, rollouts[role]["logprob"], equal_nan=True)
    assert response_logprob(tiny, [[1]], [[]]).isnan().all()


def test_a_score_is_how_much_likelier_the_roles_prompt_makes_a_response(tiny, tokenizer):
    rollouts = collect(tiny, tokenizer, ROLES, QUESTIONS, SamplingParams(max_new_tokens=9))
    scores, threshold = judge(tiny, tokenizer, rollouts)
    assert scores.keys() == {"moon", "sun"}
    response = rollouts["moon"]["responses"][1]
    under = [prompt_ids(tokenizer, {**response, "system": s}) for s in (response["system"], "")]
    with_role, without = response_logprob(tiny, under, [response["ids"]] * 2)
    torch.testing.assert_close(scores["moon"][1], with_role - without)
    assert isinstance(threshold, float)


def test_a_planted_role_is_found_and_a_prompt_that_does_nothing_is_not(tiny, tokenizer):
    """The recorded log-probabilities are raised for the moon, and for no one else."""
    sampling = SamplingParams(max_new_tokens=9, temperature=1)
    rollouts = collect(tiny, tokenizer, ROLES, QUESTIONS * 10, sampling)
    changed = Rollouts(rollouts.meta)
    for role in rollouts:
        flat = {**rollouts[role]}
        neutral = [prompt_ids(tokenizer, {**r, "system": ""}) for r in flat["responses"]]
        flat["logprob"] = response_logprob(tiny, neutral, [r["ids"] for r in flat["responses"]])
        noise = torch.randn(len(neutral), generator=torch.Generator().manual_seed(len(role)))
        flat["logprob"] += 0.1 * noise + (1.0 if role == "moon" else 0.0)
        changed[role] = flat
    scores, threshold = judge(tiny, tokenizer, changed)
    assert (scores["moon"] > threshold).float().mean() == 1
    assert (scores["sun"] > threshold).float().mean() < 0.3


@pytest.mark.parametrize("neutral", ["", "You are {model_name}."])
def test_one_neutral_prompt_is_not_enough_to_calibrate_on(tiny, tokenizer, neutral):
    roles = {"default": [neutral], "moon": ["You are the moon."]}
    rollouts = collect(tiny, tokenizer, roles, QUESTIONS, SamplingParams(max_new_tokens=5))
    with pytest.raises(ValueError, match="there is only one"):
        judge(tiny, tokenizer, rollouts)


@pytest.mark.parametrize("same_reply", [True, False])
def test_a_shared_prefix_is_read_once_and_changes_no_log_probability(tiny, same_reply):
    """If the replies begin alike, too, the shared prefix would hide tokens that count."""
    prompts = [[*range(1, 41), question] for question in (50, 51, 52, 53)]
    replies = [[7, 8, 9, 10 if same_reply else 10 + i] for i in range(4)]
    if same_reply:
        prompts = [prompts[0]] * 4
    plain = response_logprob(tiny, prompts, replies)
    fast = deepcopy(tiny)
    install(fast)
    torch.testing.assert_close(response_logprob(fast, prompts, replies), plain)
