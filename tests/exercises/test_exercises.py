"""The exercises in exercises/: their solutions, their tests, and the mistakes these must catch."""

import re
import runpy
from collections import Counter
from functools import cache
from importlib.util import find_spec

import pytest
import torch

from exercises import mutations
from exercises.hint import HINTS
from exercises.materials import FOLDER, load_file
from exercises.mutations import MARKS, PAGE, changed, first_failure, table
from exercises.show import SHOWS
from exercises.solutions.repairs import REPAIRS
from exercises.solutions.wrong import WRONG

needs_triton = pytest.mark.skipif(not find_spec("triton"), reason="pip install -e '.[dev]'")
EXERCISES = sorted(path.stem for path in FOLDER.glob("e*.py"))
RUNNABLE = [pytest.param(n, marks=needs_triton if n == "e8b_kernel" else ()) for n in EXERCISES]
BUGS = sorted(path.stem for path in (FOLDER / "bugs").glob("b*.py"))


def test_there_are_eight_exercises_and_ten_bug_hunts():
    assert len({name[:2] for name in EXERCISES}) == 8
    assert len(BUGS) == 10
    assert sorted(REPAIRS) == BUGS
    assert list(HINTS) == [name.split("_")[0] for name in [*EXERCISES, *REPAIRS]]


@pytest.mark.parametrize("name", RUNNABLE)
def test_the_solution_passes(name):
    assert first_failure(load_file(FOLDER / "solutions" / f"{name}.py"), name) is None


@pytest.mark.parametrize("name", RUNNABLE)
def test_the_unsolved_file_fails(name):
    failure = first_failure(load_file(FOLDER / f"{name}.py"), name)
    back = f"exercises/{name}.py is solved: git checkout exercises/{name}.py before you commit"
    assert failure, back
    assert isinstance(failure[1], NotImplementedError), back


@pytest.mark.parametrize("name", SHOWS)
def test_the_show_of_a_solution_prints_its_answer(name, capsys):
    (file,) = (FOLDER / "solutions").glob(f"{name}_*.py")
    with torch.no_grad():
        SHOWS[name](load_file(file))
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) >= 2
    assert "nan" not in printed


@pytest.mark.slow
@pytest.mark.parametrize("name", BUGS)
def test_the_repaired_program_passes(name):
    _, old, new = REPAIRS[name]
    assert first_failure(changed(FOLDER / "bugs" / f"{name}.py", old, new), name) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", BUGS)
def test_the_program_with_the_bug_runs_and_prints_a_figure(name, capsys):
    runpy.run_path(str(FOLDER / "bugs" / f"{name}.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert re.search(r"\d", printed), printed
    assert "nan" not in printed


caught = cache(mutations.caught)  # run once for all tests of this file


@needs_triton
@pytest.mark.slow
def test_every_mistake_is_caught_by_an_assertion_that_says_what_is_wrong():
    for name, words, failure in caught():
        assert failure, f"nothing catches {words!r} in {name}"
        assert type(failure[1]) is AssertionError, (name, words, failure)
        assert str(failure[1]).split("\n")[0].strip(), (name, words)


def test_every_exercise_has_at_least_three_wrong_solutions():
    count = Counter(name for name, *_ in WRONG)
    assert sorted(count) == EXERCISES
    assert min(count.values()) >= 3, count


@needs_triton
@pytest.mark.slow
def test_the_table_of_the_page_is_the_one_that_the_command_prints():
    begin, end = MARKS
    page = PAGE.read_text(encoding="utf-8")
    shown = page.split(begin)[1].split(end)[0].strip()
    assert shown == table(caught()), "python -m exercises.mutations --write-docs"


@pytest.mark.parametrize("name", EXERCISES)
def test_an_exercise_is_short_and_names_the_full_version(name):
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    solution = (FOLDER / "solutions" / f"{name}.py").read_text(encoding="utf-8")
    assert "Question: " in text
    files = re.findall(r"minaxis/[\w/]+\.py", text.split('"""')[1])
    assert files
    assert all((FOLDER.parent / file).is_file() for file in files)
    assert len(text.splitlines()) <= 75
    assert len(solution.splitlines()) <= 45
