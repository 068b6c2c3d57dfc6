"""The tree in README is the tree of files."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORE = [
    "model.py", "tokenizer.py", "chat.py", "generation.py", "hooks.py", "roles.py", "rollouts.py",
    "judging.py", "axis.py", "steer.py", "activation_cap.py",
]  # fmt: skip


def printed_tree() -> list[Path]:
    """Every path of the tree in README, in order.

    A line has a name and an explanation, or several files of the folder above.
    """
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (tree,) = re.findall(r"^```\n(minaxis/\n.*?)^```$", text, re.M | re.S)
    paths: list[Path] = []
    parents: list[str] = []
    for line in tree.splitlines():
        indent, name, rest = re.match(r"( *)(\S+) *(.*)", line).groups()
        depth = len(indent) // 2
        assert depth <= len(parents), f"{line!r} is in no folder"
        several = [name, *rest.split()]
        if not all(n.endswith(".py") for n in several):
            assert name == "minaxis/" or rest, f"{name}: no explanation"
            several = [name]
        paths += [Path(*parents[:depth], n) for n in several]
        parents = [*parents[:depth], name.rstrip("/")]
        assert name.endswith("/") == (ROOT / paths[-1]).is_dir(), f"{paths[-1]} is not there"
    return paths


def python_files(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.py")}


def folders(folder: Path) -> set[str]:
    """Folders that have a file. A folder whose files git has removed may still exist, empty."""
    return {
        path.name
        for path in folder.iterdir()
        if path.is_dir()
        and path.name != "__pycache__"
        and any(p.is_file() and "__pycache__" not in p.parts for p in path.rglob("*"))
    }


def test_every_path_in_the_tree_exists():
    paths = printed_tree()
    assert len(paths) == len(set(paths)) > 20
    assert [str(path) for path in paths if not (ROOT / path).exists()] == []


def test_every_file_at_the_top_and_every_folder_is_in_the_tree():
    paths = set(printed_tree())
    package = ROOT / "minaxis"
    expected = {Path("minaxis", name) for name in python_files(package) | folders(package)}
    expected |= {Path(name) for name in python_files(ROOT)}
    expected |= {
        Path(name) for name in ("minaxis", "exercises", "benchmarks", "docs", "tests", ".ci")
    }
    assert sorted(expected - paths) == []


def test_a_folder_whose_files_are_listed_has_all_of_them_in_the_tree():
    paths = printed_tree()
    opened = {path.parent for path in paths} - {Path(), Path("minaxis")}
    assert Path("minaxis/fast") in opened
    for folder in opened:
        listed = {path.name for path in paths if path.parent == folder}
        assert listed == python_files(ROOT / folder) - {"__init__.py"}


def test_the_core_comes_first_and_in_reading_order():
    inside = [path.name for path in printed_tree() if path.parent == Path("minaxis")]
    assert inside[: len(CORE)] == CORE
    files = [name for name in inside if name.endswith(".py")]
    assert inside[: len(files)] == files, "files stand before folders"


def test_the_core_files_are_short_enough_for_one_sitting():
    lines = {name: len((ROOT / "minaxis" / name).read_text().splitlines()) for name in CORE}
    assert max(lines.values()) <= 260, lines
    assert sum(lines.values()) <= 2000, lines


def test_every_file_of_the_package_is_in_the_tree():
    listed = {
        path for path in printed_tree() if path.suffix == ".py" and path.parts[0] == "minaxis"
    }
    there = {path.relative_to(ROOT) for path in (ROOT / "minaxis").rglob("*.py")}
    assert listed == {p for p in there if p.name != "__init__.py" or p.parent == Path("minaxis")}


def test_the_docstring_of_each_folder_names_its_files():
    for folder in sorted(folders(ROOT / "minaxis") - {"assets"}):
        words = (ROOT / "minaxis" / folder / "__init__.py").read_text(encoding="utf-8")
        files = python_files(ROOT / "minaxis" / folder) - {"__init__.py"}
        assert sorted(name for name in files if name not in words) == [], folder
