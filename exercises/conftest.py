"""`pytest exercises` says which exercises are solved.

A test's name leads to what it tests: test_e1_hook.py tests e1_hook.py, and in bugs/test_bugs.py
test_b1_NAME tests b1_NAME.py.
"""

import re
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1]))

from exercises.materials import FOLDER, MATERIALS, load_file  # noqa: E402

torch.set_num_threads(1)  # the tensors are so small that two threads would wait


def file_of(item) -> Path:
    """The exercise or the program that a test is about."""
    name = item.path.stem if item.path.parent == FOLDER else item.originalname
    return item.path.with_name(f"{name.removeprefix('test_')}.py")


@pytest.fixture
def exercise(request):
    return load_file(file_of(request.node))


@pytest.fixture
def model():
    return MATERIALS["model"]()


@pytest.fixture
def tokenizer():
    return MATERIALS["tokenizer"]()


@pytest.fixture
def axis():
    return MATERIALS["axis"]()


@pytest.fixture
def rollouts():
    return MATERIALS["rollouts"]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """An unsolved exercise counts as expected to fail. A wrong one says in words what is wrong."""
    report = yield
    report.file = str(file_of(item))
    if call.excinfo and call.when == "call":
        error, bug = call.excinfo.value, item.path.parent != FOLDER
        if isinstance(error, NotImplementedError) or (bug and isinstance(error, AssertionError)):
            report.outcome, report.wasxfail = "skipped", "not solved yet"
        elif isinstance(error, AssertionError):
            report.longrepr = str(error).splitlines()[0]
    return report


def pytest_terminal_summary(terminalreporter):
    """A line for each exercise and each bug."""
    results: dict[str, list[str]] = {}
    for outcome, reports in terminalreporter.stats.items():
        for report in reports:
            if getattr(report, "file", None) and outcome:
                results.setdefault(report.file, []).append(outcome)
    if not results:
        return
    terminalreporter.section("which are solved")
    todo = []
    for name in sorted(results, key=lambda n: (Path(n).parent != FOLDER, int(re.search(r"\d+", Path(n).stem)[0]))):
        path, outcomes = Path(name), results[name]
        passed = outcomes.count("passed")
        (title,) = re.findall(r'\A"""(?:\d+\. )?(.*?)\.?$', path.read_text(encoding="utf-8"), re.M)
        if passed == len(outcomes):
            state = "solved"
        else:
            todo.append(path)
            state = f"{passed} of {len(outcomes)} tests pass" if passed else "not solved yet"
        terminalreporter.line(f"{path.relative_to(FOLDER)!s:32} {state:22} {title}")
