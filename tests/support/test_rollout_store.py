import json

import pytest
import torch

from minaxis import Rollouts
from minaxis.support.files import read_tensors, write_tensors
from minaxis.support.rollout_store import file_name

META = {
    "model": "m", "layers": 3, "width": 4, "questions": ["Who?", "What?"], "seed": 0,
    "roles": {"default": [""], "moon": ["You are the moon."]},
}  # fmt: skip


def rollout(system="You are the moon.", questions=("Who?", "What?")):
    n = len(questions)
    return {
        "responses": [
            {"system": system, "question": q, "text": "I rise.", "ids": [1, 2]} for q in questions
        ],
        "mean": torch.randn(n, 3, 4), "prompt_end": torch.randn(n, 3, 4),
        "norm": torch.rand(n, 3), "logprob": torch.randn(n),
    }  # fmt: skip


@pytest.mark.parametrize("in_folder", [False, True])
def test_roles_are_kept_and_come_back_in_the_order_of_the_settings(tmp_path, in_folder):
    rollouts = Rollouts(META, tmp_path if in_folder else None)
    moon, default = rollout(), rollout("")
    rollouts["moon"] = moon
    with pytest.raises(ValueError, match=r"1 of 2 roles are missing \('default'\)"):
        list(rollouts)
    assert "moon" in rollouts
    rollouts["default"] = default
    assert list(rollouts) == ["default", "moon"]
    assert len(rollouts) == 2
    assert torch.equal(rollouts["moon"]["mean"], moon["mean"])
    with pytest.raises(KeyError):
        rollouts["sun"]


def test_a_folder_with_rollouts_of_other_settings_is_refused(tmp_path):
    Rollouts(META, tmp_path)
    with pytest.raises(ValueError, match="made with other seed"):
        Rollouts(META | {"seed": 1}, tmp_path)


def test_files_of_version_0_1_0_that_call_prompt_end_start_are_read(tmp_path):
    rollouts = Rollouts(META, tmp_path)
    moon = rollout()
    old = {("start" if k == "prompt_end" else k): v for k, v in moon.items()}
    write_tensors(tmp_path / "moon.pt", old)  # and they do not name their role
    assert torch.equal(rollouts["moon"]["prompt_end"], moon["prompt_end"])
    assert "start" not in rollouts["moon"]


def test_every_response_is_one_line_of_jsonl(tmp_path):
    rollouts = Rollouts(META)
    rollouts["default"], rollouts["moon"] = rollout("", ["Who?"]), rollout(questions="abc")
    rollouts.write_jsonl(tmp_path / "r.jsonl")
    lines = [json.loads(x) for x in (tmp_path / "r.jsonl").read_text("utf-8").splitlines()]
    assert [line["role"] for line in lines] == ["default", "moon", "moon", "moon"]
    assert lines[0].keys() == {"role", "system", "question", "text", "ids"}


@pytest.mark.parametrize("name", ["../../victim", "/tmp/victim", "a" * 300, "a\0b", "con", ".", ""])
def test_no_name_of_a_role_leads_out_of_the_folder(tmp_path, name):
    victim = tmp_path / "victim.pt"
    victim.write_text("kept")
    folder = tmp_path / "a" / "b"
    rollouts = Rollouts(META | {"roles": {"default": [""], name: ["x"]}}, folder)
    rollouts["default"], rollouts[name] = rollout(""), rollout("x")
    again = Rollouts.load(folder)
    assert again[name]["responses"][0]["system"] == "x"
    assert len(list(folder.iterdir())) == 3
    assert victim.read_text() == "kept"


def test_names_that_some_systems_cannot_tell_apart_have_different_files():
    names = ["moon", "Moon", "MOON", "mo on", "mo_on", "mo/on", "mo=on", "mo\n on", "nul", "NUL"]
    assert len({file_name(name).lower() for name in names}) == len(names)
    assert file_name("taxi_driver") == "taxi_driver.pt"  # as in earlier versions


def full(folder, **changes):
    rollouts = Rollouts(META | changes, folder)
    rollouts["default"], rollouts["moon"] = rollout(""), rollout()
    return rollouts


def test_a_file_that_vanishes_is_an_error_that_names_the_role(tmp_path):
    rollouts = full(tmp_path)
    (tmp_path / "moon.pt").unlink()
    with pytest.raises(ValueError, match=r"missing \('moon'\).*the same command adds"):
        rollouts["moon"]
    with pytest.raises(ValueError, match=r"missing \('moon'\)"):
        Rollouts.load(tmp_path)
    with pytest.raises(ValueError, match=r"missing \('moon'\)"):
        rollouts.write_jsonl(tmp_path / "r.jsonl")
    assert not (tmp_path / "r.jsonl").exists()


def test_a_file_that_was_copied_over_another_is_an_error(tmp_path):
    rollouts = full(tmp_path, roles={"default": [""], "moon": [""]})  # with the same prompt
    (tmp_path / "moon.pt").write_bytes((tmp_path / "default.pt").read_bytes())
    with pytest.raises(ValueError, match="belongs to role 'default', expected 'moon'"):
        rollouts["moon"]


def test_a_file_of_a_folder_with_other_settings_is_an_error(tmp_path):
    rollouts = full(tmp_path / "a")
    full(tmp_path / "b", seed=1)
    (tmp_path / "a" / "moon.pt").write_bytes((tmp_path / "b" / "moon.pt").read_bytes())
    with pytest.raises(ValueError, match="made with other settings"):
        rollouts["moon"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("responses"), "responses is missing"),
        (lambda d: d["responses"].pop(), "responses has length 1, expected 2"),
        (lambda d: d["responses"][0].update(system="x"), "has other prompts or questions"),
        (lambda d: d["responses"][0].update(ids=[-1]), r"responses\[0\].ids\[0\] is -1"),
        (lambda d: d["responses"][0].update(ids=["a"]), r"responses\[0\].ids\[0\] is 'a'"),
        (lambda d: d.update(mean=torch.zeros(2, 3, 5)), "mean has length 5, expected 4"),
        (lambda d: d.update(mean=[1.0]), r"mean is \[1.0\], expected a tensor of floats"),
        (lambda d: d.update(norm=torch.zeros(2, 3, dtype=torch.long)), "norm is a int64 tensor"),
        (lambda d: d.pop("logprob"), "logprob is missing"),
        (lambda d: d.pop("prompt_end"), "has no prompt_end"),
    ],
)
def test_a_file_of_another_structure_is_an_error(tmp_path, change, message):
    rollouts = full(tmp_path)
    data = read_tensors(tmp_path / "moon.pt")
    change(data)
    write_tensors(tmp_path / "moon.pt", data)
    with pytest.raises(ValueError, match=f"moon.pt: {message}"):
        rollouts["moon"]


@pytest.mark.parametrize(
    "settings", ["[]", "{}", '{"model": "m"}', '{"model": 1, "roles": {}}', "nonsense"]
)
def test_settings_of_another_structure_are_an_error(tmp_path, settings):
    (tmp_path / "settings.json").write_text(settings)
    for read in (lambda: Rollouts.load(tmp_path), lambda: Rollouts(META, tmp_path)):
        with pytest.raises(ValueError, match=r"settings\.json"):
            read()
