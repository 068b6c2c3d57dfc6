"""Wrong values, paths and devices end each script with one line and status 2."""

import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minaxis.support import arguments as cli

ROOT = Path(__file__).parents[2]
FIT = "--n-roles 3 --n-questions 2 --n-prompts 1 --tokens 4 --no-control"
WRONG = {
    "fit_axis.py": {
        "--device nonsense": "device 'nonsense' cannot be used here",
        "--device cuda:99": "device 'cuda:99' cannot be used here",
        "--device meta": "--device: 'meta' holds shapes and no numbers",
        "--temperature -1": "temperature must be 0 or at least 1e-6, got -1",
        "--temperature nan": "temperature must be 0 or at least 1e-6, got nan",
        "--top-p 0": "top_p must be above 0 and at most 1, got 0",
        "--top-p 7": "top_p must be above 0 and at most 1, got 7",
        "--tokens 0": "--tokens: expected a whole number from 1",
        "--tokens -3": "--tokens: expected a whole number from 1",
        "--tokens 3.5": "--tokens: expected a whole number from 1",
        "--n-questions -1": "--n-questions: expected a whole number from 1",
        "--n-prompts 0": "--n-prompts: expected a whole number from 1",
        "--default-samples 0": "--default-samples: expected a whole number from 1",
        "--batch-size 0": "--batch-size: expected a whole number from 1",
        f"--seed {10**23}": "--seed: expected a whole number from 0",
        "--position middle": "invalid choice: 'middle'",
        "--no-such-flag": "unrecognized arguments",
        "--n-roles 1": "--n-roles must be from 2",
        f"{FIT} --out a-file": "a-file",
        f"{FIT} --out {'a' * 300}": "File name too long",
        "--roles .": "no default.json",
        "--questions a-file": "a-file",
        "--n-questions 13": "--n-questions must be from 1 to 12, got 13",
        "--responses x --n-roles 3": "--n-roles has no effect with --responses",
    },
    "cap_demo.py": {
        "Hi --device nonsense": "device 'nonsense' cannot be used here",
        "--layers 2 Hi": "expected a layer number, got 'Hi'. Messages come first",
        "Hi --layers 9": "layer 9 is out of range",
        "Hi --percentile nan": "--percentile: expected a number from 0 to 100",
        "Hi --percentile 101": "--percentile: expected a number from 0 to 100",
        "Hi --steer nan": "--steer: expected a number from -1000",
        "Hi --tokens 0": "--tokens: expected a whole number from 1",
        "Hi --axis none.pt": "none.pt: no such file",
        "Hi --axis a-file": "a-file",
        "Hi --out a-file/x.json": "a-file",
        "Hi --out .": "--out is a file for the replies, and . is a folder",
        "--all --scale inf": "--scale: expected a number from 0.001",
        "--all --scale 0": "--scale: expected a number from 0.001",
        "--all --out a-file": "a-file",
        "--layers 3": '--layers has no effect here: it is for messages (as in "Hi"), --chat,',
        "--web --steer 1": '--steer has no effect with --web: it is for messages (as in "Hi")',
        "--all --temperature 0": "--temperature has no effect with --all: it is for messages",
        "--all --model smollm2 --scale 2": "--scale is for the tiny model's experiments",
        "Hi --all": 'messages (as in "Hi") and --all do not go together: ask for one',
    },
    "train_tiny.py": {
        "--device nonsense": "device 'nonsense' cannot be used here",
        "--width 0": "--width: expected a whole number from 1",
        "--width -4": "--width: expected a whole number from 1",
        "--width 100 --heads 4": "--width / --heads must be even, got 100 / 4",
        "--heads 0": "--heads: expected a whole number from 1",
        "--layers 1": "--layers: expected a whole number from 2",
        "--vocabulary 0": "--vocabulary: expected a whole number from 260",
        "--pre-tokens nan": "--pre-tokens: expected a number from 1",
        "--post-tokens 0": "--post-tokens: expected a number from 1",
        "--batch-tokens 0": "--batch-tokens: expected a whole number from 1",
        f"--seed {10**23}": "--seed: expected a whole number from 0",
        "--out a-file": "a-file",
    },
}


def run(monkeypatch, script, arguments):
    """Run a script in this process, and return its exit status."""
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    before = signal.getsignal(signal.SIGINT)
    try:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    except SystemExit as end:
        return end.code
    finally:
        signal.signal(signal.SIGINT, before)
    return 0


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [(script, *case) for script, cases in WRONG.items() for case in cases.items()],
)
def test_a_wrong_value_is_one_line_and_status_2(
    tmp_path, monkeypatch, capsys, script, arguments, message
):
    monkeypatch.chdir(tmp_path)
    Path("a-file").write_text("not what is expected")
    assert run(monkeypatch, script, arguments.split()) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert re.search(rf"{script}: error: .*{re.escape(message)}", error), error
    assert [p.name for p in tmp_path.iterdir()] == ["a-file"]


def test_layers_may_come_in_any_order(tmp_path, monkeypatch, capsys):
    arguments = ["Hi", "--layers", "3", "0", "3", "--tokens", "2"]
    assert run(monkeypatch, "cap_demo.py", arguments) == 0
    assert "The cap acts at layers 0 to 3. Projections are those at layer 3" in (
        capsys.readouterr().out
    )


def test_fit_axis_says_how_many_responses_it_left_out(tmp_path, monkeypatch, capsys):
    from minaxis import rollouts

    respond = rollouts.respond_in_batches

    def damaged(*args):
        ids, activations = respond(*args)
        activations["mean"][-1, 0, 0] = float("nan")
        return ids, activations

    monkeypatch.setattr(rollouts, "respond_in_batches", damaged)
    arguments = ["--n-roles", "3", "--n-questions", "3", "--no-control"]
    arguments += ["--out", str(tmp_path / "a")]
    assert run(monkeypatch, "fit_axis.py", arguments) == 2
    assert re.search(r'not finite: {"\w+": 1}', capsys.readouterr().err)
    assert not (tmp_path / "a" / "axis.pt").exists()
    assert run(monkeypatch, "fit_axis.py", [*arguments, "--skip-nonfinite"]) == 0
    assert re.search(r"Left out, because .* not finite: \w+ 1\.", capsys.readouterr().out)
    assert (tmp_path / "a" / "axis.pt").exists()


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (RuntimeError("can't allocate memory: you tried to allocate 1 TB"), "memory is full"),
        (MemoryError(), "the memory is full"),
        (ValueError("two\nlines"), "error: two lines"),
    ],
)
def test_a_full_disk_or_memory_is_one_line(capsys, error, line):
    def fail():
        raise error

    with pytest.raises(SystemExit) as end:
        cli.run(fail)
    assert end.value.code == 2
    printed = capsys.readouterr().err
    assert len(printed.splitlines()) == 1
    assert line in printed


def test_an_error_of_our_own_keeps_its_traceback():
    def fail():
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        cli.run(fail)


@pytest.mark.slow
@pytest.mark.parametrize("script", WRONG)
@pytest.mark.parametrize("moment", [0.0, 0.4, 0.8])
def test_an_interrupt_of_the_imports_ends_with_status_130(script, moment):
    code = (
        "import runpy, sys; print('started', flush=True); "
        f"runpy.run_path({str(ROOT / script)!r}, run_name='__main__')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout.readline() == "started\n"
    time.sleep(0.3 + moment)  # until the script's first lines have run
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130, error
    assert "Traceback" not in error
