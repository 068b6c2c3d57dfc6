"""Accidents of the three scripts: kills, interrupts, full disks, deleted files, two runs at once.

After each, the same command must end with the files of a run without accident, byte for byte.
MINAXIS_KILLS=50 pytest -m slow tests/kill    kills each script 50 times: about half an hour
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("MINAXIS_KILLS", "1"))
SEED = int(os.environ.get("MINAXIS_SEED", time.time()))
SCRIPTS = {
    "fit_axis.py": "--n-roles 4 --n-questions 3 --tokens 40 --batch-size 4 --out out",
    "train_tiny.py": "--layers 2 --width 16 --heads 2 --vocabulary 270 --pre-tokens 4e3 "
    "--post-tokens 2e3 --out out",
    "cap_demo.py": "Hello! --tokens 16 --out out/replies.json",
}
pytestmark = pytest.mark.slow


def start(script, folder, **options):
    folder.mkdir(exist_ok=True)
    # train_tiny.py stores the commit of its code, which may change between two of its runs.
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GIT_DIR": "none"}
    command = [sys.executable, Path(__file__).with_name("small.py"), ROOT / script]
    process = subprocess.Popen(
        [*command, *SCRIPTS[script].split()], cwd=folder, text=True,
        env=os.environ | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip
    assert process.stdout.readline() == "started\n"
    return process


def finish(script, folder, **options):
    process = start(script, folder, **options)
    error = process.communicate(timeout=600)[1]
    return process.returncode, error


def results(folder):
    """The files that a script wrote: path -> bytes. How many seconds it took is left out."""
    files = {}
    for path in sorted((folder / "out").rglob("*")):
        if path.is_file() and not path.name.startswith("."):  # a kill may leave a temporary file
            content = path.read_bytes()
            if path.suffix == ".json":
                data = json.loads(content)
                data.pop("seconds", None)
                content = json.dumps(data).encode()
            files[str(path.relative_to(folder))] = content
    return files


@pytest.fixture(scope="module", params=SCRIPTS)
def whole(request, tmp_path_factory):
    """A script, the files of a run without accident, and how many seconds that took."""
    folder, begun = tmp_path_factory.mktemp("whole") / "x", time.monotonic()
    code, error = finish(request.param, folder)
    assert code == 0, error
    return request.param, results(folder), time.monotonic() - begun


def test_after_kills_at_random_moments_a_script_ends_with_the_same_bytes(whole, tmp_path):
    script, expected, seconds = whole
    rng, killed, folders = Random(SEED), {}, 0
    print(f"MINAXIS_SEED={SEED}")
    while sum(killed.values()) < KILLS:
        folder, folders = tmp_path / str(folders), folders + 1
        for _ in range(min(3, KILLS - sum(killed.values()))):
            number = rng.choice([signal.SIGKILL, signal.SIGINT])
            process = start(script, folder)
            time.sleep(rng.uniform(0, seconds))
            process.send_signal(number)
            error = process.communicate()[1]
            if process.returncode == 0:  # it was faster
                continue
            assert process.returncode == (130 if number == signal.SIGINT else -number), error
            assert "Traceback" not in error
            killed[number] = killed.get(number, 0) + 1
        code, error = finish(script, folder)
        assert code == 0, error
        assert results(folder) == expected
    print(f"{script}: {killed}, {folders} runs continued to the same bytes")


def test_a_full_disk_ends_in_one_line_and_loses_nothing(whole, tmp_path):
    resource = pytest.importorskip("resource", reason="this system has no limits on file sizes")
    script, expected, _ = whole
    largest = max(map(len, expected.values()))

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest // 2, largest // 2))

    code, error = finish(script, tmp_path / "x", preexec_fn=limit)
    assert code == 2, error
    assert error.splitlines()[-1].endswith("error: [Errno 27] File too large")
    assert "Traceback" not in error
    assert not list((tmp_path / "x").rglob(".*"))  # no half of a file
    assert finish(script, tmp_path / "x")[0] == 0
    assert results(tmp_path / "x") == expected


def test_two_runs_into_one_folder_end_with_the_same_bytes(whole, tmp_path):
    script, expected, _ = whole
    if script != "fit_axis.py" and KILLS < 10:
        return  # the others only when there is time
    both = [start(script, tmp_path / "x") for _ in range(2)]
    for process in both:
        error = process.communicate(timeout=600)[1]
        assert process.returncode == 0, error
    assert results(tmp_path / "x") == expected


def test_a_file_deleted_during_a_run_is_named_and_the_same_command_makes_it_again(whole, tmp_path):
    script, expected, _ = whole
    if script != "fit_axis.py":
        return  # the others read no file again that they wrote
    process = start(script, tmp_path / "x")
    file = tmp_path / "x" / "out" / "rollouts" / "default.pt"
    while not file.exists():
        time.sleep(0.001)
    file.unlink()
    error = process.communicate()[1]
    assert process.returncode == 2, error
    assert "1 of 5 roles are missing ('default')" in error.splitlines()[-1]
    assert not (tmp_path / "x" / "out" / "axis.pt").exists()
    assert finish(script, tmp_path / "x")[0] == 0
    assert results(tmp_path / "x") == expected
