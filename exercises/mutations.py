"""Which test catches which mistake: every wrong solution and every planted bug, run by the tests.

    python -m exercises.mutations                 # print the table
    python -m exercises.mutations --write-docs    # and put it into docs/exercises.md
"""

import argparse
import inspect
import re
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

from exercises.materials import FOLDER, MATERIALS, load_file
from exercises.solutions.wrong import WRONG

PAGE = FOLDER.parent / "docs" / "exercises.md"
MARKS = "<!-- mutations begin -->", "<!-- mutations end -->"


@cache
def tests_of(name: str) -> list[Callable[..., None]]:
    """The tests of an exercise, such as "e1_hook", in their order."""
    functions = vars(load_file(FOLDER / f"test_{name}.py"))
    return [function for key, function in functions.items() if key.startswith("test_")]


def first_failure(exercise: ModuleType, name: str) -> tuple[str, BaseException] | None:
    """The first test that an exercise does not pass, and what it raises; None if it passes all."""
    for test in tests_of(name):
        wanted = list(inspect.signature(test).parameters)[1:]
        try:
            test(exercise, *(MATERIALS[each]() for each in wanted))
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


def caught() -> Iterator[tuple[str, str, str]]:
    """For each mistake: the exercise, the mistake in words, and the test that catches it."""
    for name, words, old, new in WRONG:
        failure = first_failure(changed(FOLDER / "solutions" / f"{name}.py", old, new), name)
        yield name, words, failure[0] if failure else "NO TEST"


def table() -> str:
    """The table of docs/exercises.md."""
    lines = ["| exercise | mistake | caught by |", "|---|---|---|"]
    for name, words, test in caught():
        sentence = test.removeprefix("test_").replace("_", " ")
        lines.append(f"| `{name}` | {words} | {sentence} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write-docs", action="store_true", help=f"write it into {PAGE.name}")
    args = parser.parse_args()
    print(text := table())
    if args.write_docs:
        begin, end = MARKS
        page = PAGE.read_text(encoding="utf-8")
        before, after = page.split(begin)[0], page.split(end)[1]
        PAGE.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
