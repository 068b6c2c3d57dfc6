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


def pytest_configure(config):
    torch.set_num_threads(1)  # the tensors are so small that two threads would wait
    if config.option.tbstyle == "auto":
        config.option.tbstyle = "short"


def subject(item) -> Path:
    """The file that a test is about."""
    if item.path.parent == FOLDER:
        return item.path.with_name(item.path.name.removeprefix("test_"))
    (file,) = item.path.parent.glob(f"{item.originalname.split('_')[1]}_*.py")
    return file


@pytest.fixture
def exercise(request):
    file = subject(request.node)
    try:
        return load_file(file)
    except Exception as error:
        if isinstance(error, ImportError) and error.name == "triton":
            pytest.skip("needs Triton, on Linux: pip install triton")
        pytest.fail(f"{file.name} does not run\n{traceback.format_exc(limit=-1)}", pytrace=False)


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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """An unsolved exercise counts as expected to fail. A wrong one says in words what is wrong."""
    report = yield
    report.subject = str(subject(item))
    if call.when == "call" and call.excinfo:
        error, is_bug = call.excinfo.value, item.path.parent != FOLDER
        if isinstance(error, NotImplementedError) or (is_bug and isinstance(error, AssertionError)):
            report.outcome, report.wasxfail = "skipped", "not solved yet"
        elif isinstance(error, AssertionError):
            report.longrepr = f"{subject(item).name}: {str(error).splitlines()[0]}"
        elif Path(call.excinfo.traceback[-1].path) == item.path:  # it returned nothing, for example
            report.longrepr = (
                f"{subject(item).name}: the test cannot use what is returned ({error})"
            )
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
            state = f"{passed} of {len(of_file)} tests pass" if passed else "not solved yet"
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
        terminalreporter.line("All are solved.")
