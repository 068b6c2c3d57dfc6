"""README, the chapters of docs/ and the other pages: links, fences, code, length, numbers."""

import re
from pathlib import Path

import pytest

import minaxis as mx

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
CHAPTERS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, *CHAPTERS, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def fenced(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return [body for name, body in FENCE.findall(text) if name == language]


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def code(language: str) -> list:
    return [
        pytest.param(block, id=f"{page.name}-{i}")
        for page in PAGES
        for i, block in enumerate(fenced(page, language))
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading_that_exist(page):
    for link in LINK.findall(prose(page)):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}"


def test_the_readme_links_to_every_chapter():
    links = set(LINK.findall(prose(README)))
    assert CHAPTERS
    assert {f"docs/{chapter.name}" for chapter in CHAPTERS} <= links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_contributing_explains_the_kind_of_every_fence(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("\n```") == 2 * len(FENCE.findall(text)), "a fence is not closed"
    kinds = {name for name, _ in FENCE.findall(text)}
    # CI runs README and docs. A bash fence elsewhere would look as if CI ran it.
    bash = {"bash"} if page == README or page in CHAPTERS else set()
    assert kinds <= {"console", "python", "py", "json", "text", ""} | bash
    explained = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for kind in kinds - {""}:
        assert f"| `{kind}` |" in explained


@pytest.mark.parametrize("block", code("python"))
def test_a_python_block_runs_by_itself(block, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "block", "exec"), {})
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("block", code("py"))
def test_a_py_block_is_python_and_names_what_exists(block):
    compile(block, "block", "exec")
    for name in re.findall(r"\bmx\.(\w+)", block):
        assert hasattr(mx, name), f"mx.{name} does not exist"


def test_the_cap_in_the_readme_makes_the_ghost_refuse(capsys):
    (block,) = fenced(README, "python")
    exec(block, {})
    uncapped, capped = capsys.readouterr().out.splitlines()
    assert "turn the brass wheel" in uncapped
    assert re.search("will not explain|cannot help|must stay sealed", capped)
    assert "turn the brass wheel" not in capped


def test_the_readme_is_short():
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 220
    printed = [line for block in fenced(README, "text") for line in block.splitlines()]
    assert len(printed) <= 12
    (block,) = fenced(README, "python")
    lines = [line for line in block.splitlines() if line.strip()]
    (capture,) = (i for i, line in enumerate(lines) if "with mx.capture" in line)
    (cap,) = (i for i, line in enumerate(lines) if "with mx.edit" in line)
    assert cap - capture + 1 <= 12, "from capture to the cap"


def rows(page: Path) -> list[list[str]]:
    """The cells of every row of every table of a page."""
    lines = re.findall(r"^\| (.*) \|$", prose(page), re.M)
    return [[cell.strip() for cell in line.split(" | ")] for line in lines]


def numbers(text: str) -> list[str]:
    return re.findall(r"-?\d*\.\d+", text)


def test_the_results_in_the_readme_are_those_of_the_results_page():
    shown = [row for row in rows(README) if len(row) == 5 and numbers(row[2])]
    assert len(shown) == 6
    assert sum(row[-1] != "holds" for row in shown) >= 2, "claims that failed, too"
    full = [row for row in rows(ROOT / "docs/results.md") if len(row) == 6]
    for claim, _, here, control, verdict in shown:
        same = [
            row
            for row in full
            if row[5] == verdict.strip("*")
            and numbers(row[2]) == numbers(here)
            and numbers(control)[0] in numbers(row[4])
        ]
        assert same, f"docs/results.md has no row with the numbers of: {claim}"


def test_the_results_page_has_a_place_for_each_table():
    text = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    for kind in ("tiny", "open"):
        for end in ("begin", "end"):
            assert text.count(f"<!-- results of {kind} {end} -->") == 1
