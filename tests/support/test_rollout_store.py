import json

import pytest
import torch

from minaxis import Rollouts
from minaxis.support.files import write_tensors

META = {"model": "m", "roles": {"default": [""], "moon": ["You are the moon."]}, "seed": 0}


def rollout(n=2):
    asked = {"system": "You are the moon.", "question": "Who?"}
    return {
        "responses": [{**asked, "text": "I rise.", "ids": [1, 2]} for _ in range(n)],
        "mean": torch.randn(n, 3, 4), "prompt_end": torch.randn(n, 3, 4),
        "norm": torch.rand(n, 3), "logprob": torch.randn(n),
    }  # fmt: skip


@pytest.mark.parametrize("in_folder", [False, True])
def test_roles_are_kept_and_come_back_in_the_order_of_the_settings(tmp_path, in_folder):
    rollouts = Rollouts(META, tmp_path if in_folder else None)
    moon, default = rollout(), rollout()
    assert list(rollouts) == []
    rollouts["moon"], rollouts["default"] = moon, default
    assert list(rollouts) == ["default", "moon"]
    assert len(rollouts) == 2
    assert torch.equal(rollouts["moon"]["mean"], moon["mean"])
    with pytest.raises(KeyError):
        rollouts["sun"]


def test_a_folder_with_rollouts_of_other_settings_is_refused(tmp_path):
    Rollouts(META, tmp_path)
    with pytest.raises(ValueError, match="made with another seed"):
        Rollouts(META | {"seed": 1}, tmp_path)


def test_files_of_version_0_1_0_that_call_prompt_end_start_are_read(tmp_path):
    rollouts = Rollouts(META, tmp_path)
    moon = rollout()
    old = {("start" if k == "prompt_end" else k): v for k, v in moon.items()}
    write_tensors(tmp_path / "moon.pt", old)
    assert torch.equal(rollouts["moon"]["prompt_end"], moon["prompt_end"])
    assert "start" not in rollouts["moon"]


def test_every_response_is_one_line_of_jsonl(tmp_path):
    rollouts = Rollouts(META)
    rollouts["default"], rollouts["moon"] = rollout(1), rollout(3)
    rollouts.write_jsonl(tmp_path / "r.jsonl")
    lines = [json.loads(x) for x in (tmp_path / "r.jsonl").read_text("utf-8").splitlines()]
    assert [line["role"] for line in lines] == ["default", "moon", "moon", "moon"]
    assert lines[0].keys() == {"role", "system", "question", "text", "ids"}
