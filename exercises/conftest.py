"""`pytest exercises` says which exercises are solved.

A test's name leads to what it tests: test_e1_hook.py is about e1_hook.py, and the test test_b1_...
of bugs/test_bugs.py is about the program bugs/b1_....py.
"""

import re
import sys
import traceback
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1]))

from exercises.materials import FOLDER, MATERIALS, load_file

torch.set_num_threads(1)  # the tensors are so small that two threads would wait


def subject(item) -> Path:
    """The file that a test is about."""
    if item.path.parent == FOLDER:
        return item.path.with_name(item.path.name.removeprefix("test_"))
    (file,) = item.path.parent.glob(f"{item.originalname.split('_')[1]}_*.py")
    return file


@pytest.fixture
def exercise(request):
    try:
        return load_file(subject(request.node))
    except ImportError as error:
        if error.name == "triton":
            pytest.skip("needs Triton, on Linux: pip install triton")
        raise


@pytest.fixture
def program(exercise):
    return exercise


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


def in_words(call, test: Path, file: Path) -> str:
    """Why a test has failed, in a line or two."""
    error = call.excinfo.value
    while error.__cause__:  # Triton's interpreter wraps what has happened inside a kernel
        error = error.__cause__
    first_line = (str(error).splitlines() or [""])[0]
    if isinstance(error, AssertionError) and Path(call.excinfo.traceback[-1].path) == test:
        return f"{file.name}: {first_line}"
    if isinstance(error, SyntaxError):  # its message names the file and the line
        return f"{type(error).__name__}: {first_line}"
    for entry in reversed(traceback.extract_tb(error.__traceback__)):
        if Path(entry.filename) == file:
            where = f"{file.name}, line {entry.lineno}: {entry.line}"
            return f"{where}\n    {type(error).__name__}: {first_line}"
    return f"{file.name}: the test cannot go on: {first_line}"  # with None in a tensor's place


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """An unsolved exercise counts as expected to fail. A wrong one says in words what is wrong."""
    report = yield
    report.subject = str(subject(item))
    if report.outcome == "failed":
        error, is_bug = call.excinfo.value, item.path.parent != FOLDER
        if isinstance(error, NotImplementedError) or (is_bug and isinstance(error, AssertionError)):
            report.outcome, report.wasxfail = "skipped", "not solved yet"
        elif item.config.option.tbstyle == "auto":
            report.longrepr = in_words(call, item.path, subject(item))
            report.sections = [each for each in report.sections if "stderr" not in each[0]]
    return report


def pytest_terminal_summary(terminalreporter):
    """A line for each exercise and each program with a bug."""
    outcomes: dict[Path, list[str]] = {}
    for outcome, reports in terminalreporter.stats.items():
        for report in reports:
            if outcome and hasattr(report, "subject"):
                outcomes.setdefault(Path(report.subject), []).append(outcome)
    if not outcomes:
        return
    terminalreporter.section("which are solved")
    unsolved = []
    for file in sorted(outcomes, key=lambda f: (f.parent != FOLDER, len(f.stem.split("_")[0]), f)):
        of_file = outcomes[file]
        passed = of_file.count("passed")
        if passed == len(of_file):
            state = "solved"
        elif "skipped" in of_file:
            state = "needs Triton"
        else:
            unsolved.append(file)
            tried = passed or "failed" in of_file
            state = f"{passed} of {len(of_file)} tests pass" if tried else "not solved yet"
            state = "does not run" if "error" in of_file else state
        title = re.search(r'"""(?:Bug hunt )?\w+[.:] (.*)', file.read_text(encoding="utf-8"))
        name = str(file.relative_to(FOLDER))
        terminalreporter.line(f"{name:27}{state:20}{title[1] if title else ''}")
    terminalreporter.line("")
    if unsolved:
        name = unsolved[0].stem.split("_")[0]
        terminalreporter.line(f"next: exercises/{unsolved[0].relative_to(FOLDER)}")
        terminalreporter.line(f"a hint: python exercises/hint.py {name}")
    else:
        terminalreporter.line("All of these are solved.")
