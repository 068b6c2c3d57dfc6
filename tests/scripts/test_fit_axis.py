import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from minaxis import Axis, Transformer

ROOT = Path(__file__).parents[2]
ROLES = {
    "default": ["", "Respond as yourself.", "You are {model_name}."],
    "roles": {name: [f"You are a {name}.", f"Speak as a {name}."]
              for name in ("clerk", "baker", "gull", "moon", "ghost", "whale")},
}  # fmt: skip


@pytest.fixture
def world(tiny, tokenizer, tmp_path, write_gguf):
    """A folder with a small model and roles, and the arguments that name them."""
    config = replace(tiny.config, max_position_embeddings=1024)
    model = Transformer(config)
    model.load_state_dict(tiny.state_dict())
    write_gguf(tmp_path / "m.gguf", model, tokenizer)
    (tmp_path / "roles.json").write_text(json.dumps(ROLES))
    return tmp_path


def arguments(world, *more):
    return [str(a) for a in (
        "fit_axis.py", "--model", world / "m.gguf", "--roles", world / "roles.json",
        "--tokens", 24, "--batch-size", 4, "--device", "cpu", *more,
    )]  # fmt: skip


def start(arguments, folder):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(ROOT / arguments[0]), *arguments[1:]], cwd=folder, text=True,
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(arguments, folder):
    process = start(arguments, folder)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_a_role_that_is_left_out_is_named(tmp_path):
    roles = {name: [f"You are the {name}."] for name in ("auditor", "ghost", "clockmaker")}
    (tmp_path / "roles.json").write_text(json.dumps({"default": [""], "roles": roles}))
    command = ["fit_axis.py", "--roles", "roles.json", "--n-questions", "4", "--no-control"]
    code, out, err = finish(command, tmp_path)
    assert code == 0, err
    assert "fewer than two responses in role: clockmaker (0%).\n" in out
    assert "no characters but those of world.json" in out


def test_fit_axis_continues_after_a_kill_and_writes_the_same_file(world):
    code, out, err = finish(arguments(world, "--out", "whole"), world)
    assert code == 0, err
    assert "cos PC1" in out
    assert "the default Assistant" in out
    assert "Role adoption" in out

    killed = start(arguments(world, "--out", "killed"), world)
    rollouts = world / "killed" / "rollouts"
    deadline = time.monotonic() + 60
    while not list(rollouts.glob("*.pt")) and time.monotonic() < deadline:
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert 0 < len(list(rollouts.glob("*.pt"))) < 7
    assert not (world / "killed" / "axis.pt").exists()

    code, _, err = finish(arguments(world, "--out", "killed"), world)
    assert code == 0, err
    for name in ("axis.pt", "responses.jsonl"):
        assert (world / "killed" / name).read_bytes() == (world / "whole" / name).read_bytes()

    axis = Axis.load(world / "whole" / "axis.pt")
    assert axis.meta["model"] == "m"
    assert len(axis.roles) == 6
    report = json.loads((world / "whole" / "report.json").read_text())
    assert len(report["layers"]) == len(report["random_control"]) == 3
    assert {r["role"] for r in report["roles"]} == set(ROLES["roles"])
    assert report["settings"]["seed"] == 0
    assert len((world / "whole" / "responses.jsonl").read_text().splitlines()) == 4 * (12 + 12)

    demo = ["cap_demo.py", "--model", str(world / "m.gguf"), "--axis", "whole/axis.pt", "--out",
            "demo.json", "--tokens", "8", "--device", "cpu", "--steer", "-1"]  # fmt: skip
    code, out, err = finish([*demo, "--", "Hi", "And?"], world)
    assert code == 0, err
    assert out.count("\n> ") == 2
    assert [out.count(f"\n{name} ") for name in ("baseline", "capped", "steered")] == [2, 2, 2]
    demo = json.loads((world / "demo.json").read_text())
    assert [t["intervention"] for t in demo["turns"]] == ["baseline", "capped", "steered"] * 2
    floor = axis.thresholds(75)[2].item()
    capped = [t["projection"] for t in demo["turns"] if t["intervention"] == "capped"]
    assert all(p > floor - 1e-3 for p in capped)

    settings = world / "whole" / "rollouts" / "settings.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"seed": 5}))
    export = ["cap_demo.py", "--export", "exported", "--axis", "whole/axis.pt"]
    code, out, err = finish(export, world)
    assert code == 0, err
    assert "no responses are written: whole/rollouts is of another run than whole/axis.pt" in out
    assert not (world / "exported" / "responses").exists()


@pytest.mark.parametrize(
    ("script", "more", "message"),
    [
        ("fit_axis.py", ["--model", "none.gguf"], "none.gguf: no such file"),
        ("fit_axis.py", ["--model", "m.gguf", "--roles", "none.json"], "none.json: no such file"),
        ("fit_axis.py", ["--model", "m.gguf", "--n-roles", "1"], "--n-roles must be from 2 to 56"),
        ("fit_axis.py", ["--model", "m.gguf", "--tokens", "1000"], "exceed the context of 1024"),
        ("cap_demo.py", ["--model", "m.gguf", "Hi"], "make it with: python fit_axis.py"),
        ("cap_demo.py", ["--model", "m.gguf", "--axis", "bad.pt", "Hi"], "bad.pt: not a readable"),
        ("cap_demo.py", ["--model", "m.gguf", "--axis", "other.pt", "Hi"], "belongs to other"),
        ("cap_demo.py", ["--model", "m.gguf", "--axis", "a.pt", "--layers", "9", "--", "Hi"],
         r"layer 9 is out of range: this model has 3 layers \(0 to 2\)"),
    ],
)  # fmt: skip
def test_bad_input_ends_with_one_line_and_status_2_and_writes_nothing(
    world, monkeypatch, capsys, script, more, message
):
    (world / "bad.pt").write_text("no axis")
    for name, model in (("other", "other"), ("a", "m")):
        Axis(
            vectors=torch.ones(3, 24), projections=torch.rand(5, 3), meta={"model": model}
        ).save(world / f"{name}.pt")  # fmt: skip
    monkeypatch.chdir(world)
    before = sorted(world.rglob("*"))
    monkeypatch.setattr(sys, "argv", [script, "--device", "cpu", *more])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert re.search(message, error), error
    assert sorted(world.rglob("*")) == before


def test_ctrl_c_ends_with_one_line(monkeypatch, capsys):
    from minaxis.support import arguments as cli

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        cli.run(interrupted)
    assert end.value.code == 130
    assert "interrupted" in capsys.readouterr().err
