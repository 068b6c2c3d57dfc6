"""Which test catches which mistake: every wrong solution and every planted bug, run by the tests.

    python -m exercises.mutations                 # print the table
    python -m exercises.mutations --write-docs    # and put it into docs/exercises.md

"NO TEST" in the last column is a mistake that nothing catches.
"""

import argparse
import inspect
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

from exercises.materials import FOLDER, MATERIALS, load_file
from exercises.solutions.repairs import REPAIRS
from exercises.solutions.wrong import WRONG

PAGE = FOLDER.parent / "docs" / "exercises.md"
MARKS = "<!-- mutations begin -->", "<!-- mutations end -->"
Test = Callable[..., None]
Failure = tuple[str, BaseException]  # the name of a test, and what it raised


@cache
def tests_of(name: str) -> list[Test]:
    """The tests of an exercise, such as "e1_hook", or of a program with a bug, "b1_fire_rate"."""
    bug = name.startswith("b")
    path = FOLDER / "bugs" / "test_bugs.py" if bug else FOLDER / f"test_{name}.py"
    prefix = f"test_{name.split('_')[0]}_" if bug else "test_"
    return [test for key, test in vars(load_file(path)).items() if key.startswith(prefix)]


def first_failure(module: ModuleType, name: str) -> Failure | None:
    """The first test that a module does not pass, and what it raises; None if it passes all."""
    for test in tests_of(name):
        _, *wanted = inspect.signature(test).parameters  # the first is the module
        try:
            test(module, *(MATERIALS[each]() for each in wanted))
        except Exception as error:
            return test.__name__, error
    return None


def changed(path: Path, old: str, new: str) -> ModuleType:
    """A Python file in which one passage is replaced by another, as a module."""
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{path}: {old!r} is there {text.count(old)} times"
    with tempfile.TemporaryDirectory() as folder:  # in a file, because Triton reads the source
        copy = Path(folder, path.name)
        copy.write_text(text.replace(old, new), encoding="utf-8")
        return load_file(copy)


def mistakes() -> Iterator[tuple[str, str, ModuleType]]:
    """Every mistake: the exercise or program, the mistake in words, and the wrong module."""
    for name, words, old, new in WRONG:
        yield name, words, changed(FOLDER / "solutions" / f"{name}.py", old, new)
    for name, (words, _, _) in REPAIRS.items():
        yield name, words, load_file(FOLDER / "bugs" / f"{name}.py")


def caught() -> list[tuple[str, str, Failure | None]]:
    """Every mistake: the exercise or program, the mistake in words, and what catches it."""
    return [(name, words, first_failure(module, name)) for name, words, module in mistakes()]


def table(rows: list[tuple[str, str, Failure | None]]) -> str:
    """The table of docs/exercises.md, from what `caught` returns."""
    lines = ["| file | mistake | caught by the test |", "|---|---|---|"]
    for name, words, failure in rows:
        words_of_test = failure[0].removeprefix("test_") if failure else "NO TEST"
        lines.append(f"| `{name}` | {words} | {words_of_test.replace('_', ' ')} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write-docs", action="store_true", help=f"write it into {PAGE.name}")
    args = parser.parse_args()
    print(text := table(caught()))
    if args.write_docs:
        begin, end = MARKS
        page = PAGE.read_text(encoding="utf-8")
        before, after = page.split(begin)[0], page.split(end)[1]
        PAGE.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
