"""torchrun shares out the work of the scripts, and the results are those of one process."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from minaxis.tiny.checkpoint import read_info

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
JOB = ["--n-roles", "12", "--n-questions", "6", "--batch-size", "16", "--tokens", "24"]
TRAINING = "tests/distributed/train_over_ranks.py"

pytestmark = pytest.mark.slow


def start(launcher, script, *arguments):
    command = [*launcher, str(ROOT / script), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )  # fmt: skip


def end(process):
    """The status and the output of a process. One that hangs is killed."""
    try:
        printed, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    return process.returncode, printed


def run(ranks, script, *arguments):
    launcher = [*TORCHRUN, "--standalone", "--nproc-per-node", str(ranks)] if ranks else []
    return end(start(launcher or [sys.executable], script, *arguments))


def fit(ranks, folder, *arguments):
    status, printed = run(ranks, "fit_axis.py", *JOB, "--out", folder, *arguments)
    assert status == 0, printed
    return printed


def train(ranks, arguments):
    """Train and measure in seconds: see tests/kill/small.py."""
    status, printed = run(ranks, "tests/kill/small.py", ROOT / "train_tiny.py", *arguments)
    assert status == 0, printed
    return printed


def files(folder):
    """All but what a killed process was about to write: the names of those begin with a dot."""
    found = (folder / "rollouts").glob("[!.]*")
    return {path.name: path.read_bytes() for path in found}


def shown(printed):
    """What a fit has printed, without progress and times."""
    return [
        line for line in printed.splitlines() if "tokens/s" not in line and "written" not in line
    ]


def two_nodes(*arguments_of_each):
    """Two launchers that find each other at one port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = [*TORCHRUN, "--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d"]
    launcher += ["--rdzv-endpoint", f"127.0.0.1:{port}", "--local-addr", "127.0.0.1"]
    nodes = [start(launcher, "fit_axis.py", *arguments) for arguments in arguments_of_each]
    return [end(node) for node in nodes]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The folder of a fit by one process, and what it printed."""
    folder = tmp_path_factory.mktemp("one")
    return folder, fit(0, folder)


@pytest.mark.parametrize("ranks", [2, 4])
def test_several_ranks_write_the_same_rollouts_and_the_same_axis_as_one(one, ranks, tmp_path):
    printed = fit(ranks, tmp_path)
    assert files(tmp_path) == files(one[0])
    for name in ("axis.pt", "responses.jsonl"):
        assert (tmp_path / name).read_bytes() == (one[0] / name).read_bytes()
    ours = [line for line in shown(printed) if "OMP_NUM_THREADS" not in line]
    assert ours == shown(one[1]), "rank 0 alone prints"
    counts = re.findall(r"responses (\d+)/(\d+)", printed)
    assert counts[-1][0] == counts[-1][1], "the last line counts what all ranks have done"


def test_a_killed_rank_ends_the_run_with_its_name_and_three_ranks_continue_it(one, tmp_path):
    launcher = [*TORCHRUN, "--standalone", "--nproc-per-node", "2"]
    process = start(launcher, "fit_axis.py", *JOB, "--out", tmp_path)
    found = []
    while len(found) < 2:  # looked up now, because it takes time on a busy machine
        command = ["pgrep", "-P", str(process.pid)]
        found = subprocess.run(command, capture_output=True, text=True).stdout.split()
    while not list(tmp_path.glob("rollouts/*.pt")):
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(int(found[-1]), signal.SIGKILL)
    status, printed = end(process)
    assert status == 1
    assert "Signal 9 (SIGKILL)" in printed
    assert re.search(r"rank +: 1 ", printed)
    assert not (tmp_path / "axis.pt").exists()
    assert files(tmp_path).items() < files(one[0]).items(), "only a part was done, and it is whole"
    fit(3, tmp_path)
    assert files(tmp_path) == files(one[0])
    assert (tmp_path / "axis.pt").read_bytes() == (one[0] / "axis.pt").read_bytes()


def test_two_nodes_with_a_shared_folder_give_the_same_axis(one, tmp_path):
    ended = two_nodes(*[[*JOB, "--out", tmp_path]] * 2)
    assert [status for status, _ in ended] == [0, 0], ended
    assert (tmp_path / "axis.pt").read_bytes() == (one[0] / "axis.pt").read_bytes()


def test_ranks_of_other_settings_are_an_error_that_names_rank_and_setting(tmp_path):
    job = [*JOB, "--out", tmp_path]
    ended = two_nodes(job, [*job, "--seed", "1", "--tensor-parallel", "2"])
    assert [status for status, _ in ended] == [1, 1]
    printed = "".join(text for _, text in ended)
    lines = [line for line in printed.splitlines() if "error: rank 1 has another" in line]
    assert len(lines) == 1, printed
    assert "another seed, tensor_parallel than rank 0" in lines[0]
    assert not list(tmp_path.glob("rollouts/*.pt"))


@pytest.mark.parametrize(
    ("ranks", "arguments", "message"),
    [
        (3, ["--n-roles", "2", "--batch-size", "999"], "more workers (3) than batches of roles"),
        (3, ["--tensor-parallel", "2"], "expected a number that divides 3 (1, 3)"),
        (2, ["--responses", "somewhere"], "--responses is for one worker"),
        (2, ["--n-roles", "0"], "expected a whole number from 1"),
    ],
)  # fmt: skip
def test_what_all_ranks_refuse_is_one_line(ranks, arguments, message, tmp_path):
    status, printed = run(ranks, "fit_axis.py", "--out", tmp_path, *arguments)
    assert status == 1  # torchrun's; that of the rank is 2
    errors = [line for line in printed.splitlines() if "error: " in line]
    assert len(errors) == 1, printed
    assert message in errors[0]
    assert "exitcode  : 2" in printed


def test_a_script_for_one_process_and_a_missing_rendezvous_are_refused_in_one_line(monkeypatch):
    status, printed = run(2, "cap_demo.py")
    assert status == 1
    assert printed.count("only --all runs over ranks: use python") == 1
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    status, printed = run(0, "fit_axis.py")
    assert status == 2
    assert "the other ranks cannot be found" in printed
    assert len(printed.splitlines()) == 1


def test_training_over_ranks_follows_the_losses_of_one_process_and_continues_with_others(tmp_path):
    losses, weights = [], []
    for ranks, then in ((1, 1), (2, 3)):
        folder = tmp_path / str(ranks)
        folder.mkdir()
        for number in (ranks, then):  # the first is interrupted half-way, the second goes on
            launcher = [*TORCHRUN, "--standalone", "--nproc-per-node", str(number)]
            status, printed = end(start(launcher, TRAINING, folder))
            assert status == 0, printed
        losses.append(json.loads((folder / "losses.json").read_text()))
        weights.append(torch.load(folder / "weights.pt"))
    assert len(losses[0]) == len(losses[1]) > 20
    assert losses[0][-1] < losses[0][0] - 1
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=0, atol=2e-3)


def test_the_training_script_trains_over_ranks_and_rank_0_measures_alone(tmp_path):
    arguments = "--layers 2 --width 16 --heads 2 --vocabulary 270 --pre-tokens 4e3"
    losses = []
    for ranks in (1, 2):
        out = tmp_path / str(ranks) / "tiny"
        printed = train(ranks, ["--post-tokens", "2e3", *arguments.split(), "--out", out])
        assert printed.count("Wrote tiny.pt") == 1
        assert {path.name for path in out.iterdir()} == {
            "tiny-base.pt", "tiny.pt", "tiny-axis.pt", "tiny.json"
        }  # fmt: skip
        losses.append(read_info(out / "tiny.pt")["validation loss"])
    assert losses[1] == pytest.approx(losses[0], abs=1e-3)
