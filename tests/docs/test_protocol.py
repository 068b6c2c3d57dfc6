"""The rule of docs/protocol.md was there before the held-out runs, and nobody has changed it."""

import json
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROTOCOL, RUNS = "docs/protocol.md", "docs/held-out.json"


def git(folder, *command):
    """What a git command prints, or None if it fails."""
    try:
        done = subprocess.run(["git", "-C", folder, *command], capture_output=True, text=True)
    except FileNotFoundError:  # git is not installed
        return None
    return done.stdout if done.returncode == 0 else None


def rule_sha256(page):
    """SHA-256 of the section "The rule", as benchmarks/held_out.py records it."""
    (text,) = (section for section in page.split("\n## ") if section.startswith("The rule\n"))
    return sha256(text.encode()).hexdigest()


def check_the_rule_is_older(folder, recorded):
    """Raise an AssertionError unless the rule is the recorded one, and older than the runs.

    The history is checked where it is complete: the commit before the one with the runs must
    have the same rule. In a copy without a history, only the rule itself is checked.
    """
    assert rule_sha256((folder / PROTOCOL).read_text(encoding="utf-8")) == recorded
    if git(folder, "rev-parse", "--is-shallow-repository") != "false\n":
        return
    added = (git(folder, "log", "--diff-filter=A", "--format=%H", "--", RUNS) or "").split()
    if added and git(folder, "rev-parse", "--verify", f"{(first := added[-1])}^"):
        before = git(folder, "show", f"{first}^:{PROTOCOL}")
        assert before is not None, f"{PROTOCOL} is not older than {RUNS}"
        assert rule_sha256(before) == recorded, "the rule was changed together with the runs"


def test_the_rule_is_older_than_the_held_out_runs():
    recorded = json.loads((ROOT / RUNS).read_text(encoding="utf-8"))["rule_sha256"]
    check_the_rule_is_older(ROOT, recorded)


@pytest.fixture
def history(tmp_path):
    """A function that makes a repository: one commit for each dict of path -> text."""

    def make(*commits):
        git(tmp_path, "init", "-q")
        for files in commits:
            for path, text in files.items():
                (tmp_path / path).parent.mkdir(exist_ok=True)
                (tmp_path / path).write_text(text)
            git(tmp_path, "add", ".")
            git(tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "next")
        return tmp_path

    return make


def page(rule, rest=""):
    return f"# The protocol\n\n## The rule\n\n{rule}\n\n## Results\n\n{rest}\n"


def test_a_rule_that_is_older_than_the_runs_may_get_other_text_around_it(history):
    folder = history(
        {PROTOCOL: page("Least harm.")}, {RUNS: "[]"}, {PROTOCOL: page("Least harm.", "Good.")}
    )
    check_the_rule_is_older(folder, rule_sha256(page("Least harm.")))


def test_a_rule_that_came_or_changed_with_the_runs_or_after_them_is_found(history):
    folder = history({"docs/x": ""}, {RUNS: "[]", PROTOCOL: page("Least harm.")})
    with pytest.raises(AssertionError, match="not older"):
        check_the_rule_is_older(folder, rule_sha256(page("Least harm.")))
    with pytest.raises(AssertionError):
        check_the_rule_is_older(folder, rule_sha256(page("Most harm.")))


def test_a_rule_that_was_changed_together_with_the_runs_is_found(history):
    folder = history({PROTOCOL: page("Most harm.")}, {RUNS: "[]", PROTOCOL: page("Least harm.")})
    with pytest.raises(AssertionError, match="changed together"):
        check_the_rule_is_older(folder, rule_sha256(page("Least harm.")))


def test_a_copy_without_a_history_shows_the_rule_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "docs").mkdir()
    (tmp_path / PROTOCOL).write_text(page("Least harm."))
    check_the_rule_is_older(tmp_path, rule_sha256(page("Least harm.")))
