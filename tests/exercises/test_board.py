"""What `pytest exercises` prints: on the first day, and in the middle of the work."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from exercises.materials import FOLDER
from exercises.solutions.repairs import REPAIRS
from exercises.solutions.wrong import WRONG

ROOT = FOLDER.parent
# A machine without Triton: None in sys.modules makes an import fail.
RUN = """
import sys
if "no-triton" in sys.argv:
    sys.modules["triton"] = None
import pytest
sys.exit(pytest.main(["exercises", "-p", "no:cacheprovider"]))
"""


@pytest.fixture
def copy(tmp_path):
    """A copy of the exercises that a learner may change."""
    shutil.copytree(FOLDER, tmp_path / "exercises", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def run(folder: Path, *words: str) -> tuple[int, str, dict[str, str]]:
    """Exit status, output, and the state of each file on the board."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, *words],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    board = re.findall(r"^(?:bugs/)?([eb]\d+\w*)\.py +(.+?)  ", done.stdout, re.M)
    return done.returncode, done.stdout, dict(board)


@pytest.mark.slow
def test_the_first_day_shows_what_is_to_be_done_and_no_error(copy):
    status, output, board = run(copy)
    assert status == 0
    assert len(board) == 19
    assert set(board.values()) == {"not solved yet"}
    assert "Error" not in output
    assert "Traceback" not in output
    assert "next: exercises/e1_hook.py" in output
    assert len(output.splitlines()) < 50


@pytest.mark.slow
def test_in_the_middle_of_the_work_each_file_has_its_state_and_a_wrong_one_its_sentence(copy):
    folder = copy / "exercises"
    for name in ("e1_hook", "e2_response_mean", "e3_axis"):
        shutil.copy(folder / "solutions" / f"{name}.py", folder)
    text = (folder / "solutions" / "e5_steer.py").read_text(encoding="utf-8")
    (old, new), *_ = (w[2:] for w in WRONG if w[:2] == ("e5_steer", "prompt only"))
    (folder / "e5_steer.py").write_text(text.replace(old, new), encoding="utf-8")
    (folder / "e6_cap.py").write_text("def cap(h, v, tau:\n", encoding="utf-8")
    program = folder / "bugs" / "b1_fire_rate.py"
    _, old, new = REPAIRS["b1_fire_rate"]
    program.write_text(program.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")

    status, output, board = run(copy, "no-triton")
    assert status == 1
    assert board["e1_hook"] == board["e3_axis"] == board["b1_fire_rate"] == "solved"
    assert board["e4_pca"] == board["b2_drift"] == "not solved yet"
    assert board["e5_steer"] == "4 of 5 tests pass"
    assert "e5_steer.py: the steered model says" in output
    assert board["e6_cap"] == "does not run"
    assert "SyntaxError: '(' was never closed (e6_cap.py, line 1)" in output
    assert "Traceback" not in output
    assert board["e8b_kernel"] == "needs Triton"
    assert "pip install triton" in output
    assert "next: exercises/e4_pca.py" in output
    assert len(output.splitlines()) < 75
