"""cap_demo.py on the models that come with minaxis."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "cap_demo.py"


def run(*arguments):
    done = subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.slow
def test_the_story_is_told_and_told_again_alike():
    told = run()
    assert told.count("\n> ") == 8
    shares = re.findall(r"give a secret away, as a fantastical.* (\d\.\d\d) +(\S+) +(\S+)", told)
    plain, capped, random = map(float, shares[0])
    assert plain > 0.8
    assert capped < 0.75 * plain
    assert random > 0.75 * plain
    assert run() == told


@pytest.mark.slow
def test_a_reduced_all_writes_a_report_that_needs_nothing_else(tmp_path):
    out = run("--all", "--scale", 0.1, "--out", tmp_path)
    assert "hold" in out
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results) == 7
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == len(list(tmp_path.glob("*.png"))) == 8
    assert not re.search(r'(src|href)="(?!#)', page)


@pytest.mark.slow
def test_messages_to_the_tiny_model_find_its_axis():
    assert run("What are you?").count("\n> ") == 1


def test_an_option_that_only_answers_heed_is_not_ignored():
    command = [sys.executable, SCRIPT, "--layers", "3"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2
    assert 'add one, as in "Hi" --layers' in ended.stderr
