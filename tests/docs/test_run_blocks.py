"""The program that runs the shell blocks of README and docs in CI."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run_blocks():
    spec = importlib.util.spec_from_file_location("run_blocks", ROOT / ".ci" / "run_blocks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_with_a_shell_block_is_run_and_readme_first(run_blocks):
    pages = run_blocks.pages()
    assert pages[0] == ROOT / "README.md"
    assert set(pages[1:]) == set((ROOT / "docs").glob("*.md"))


def test_a_page_installs_before_it_runs_anything(run_blocks):
    for page in run_blocks.pages():
        commands = "".join(run_blocks.blocks(page.read_text(encoding="utf-8"), "bash"))
        assert not commands or commands.startswith("pip install -e ")


def test_only_bash_blocks_are_run(run_blocks):
    text = "```bash\none\n```\n```console\ntwo\n```\n```bash\nthree\n```\n"
    assert run_blocks.blocks(text, "bash") == ["one\n", "three\n"]


def test_each_line_of_a_text_block_must_be_printed_but_its_numbers_may_differ(run_blocks):
    page = "```text\nleak rate   0.98  -1\n...\n```\n"
    assert run_blocks.missing(page, "before\nleak rate  .25   12\n") == []
    assert run_blocks.missing(page, "accuracy  0.98\n") == ["leak rate   0.98  -1"]


def test_a_failing_command_fails_the_page(run_blocks, tmp_path, monkeypatch):
    monkeypatch.setattr(run_blocks, "ROOT", tmp_path)
    monkeypatch.setattr(run_blocks, "copy_repository", lambda to: to.mkdir())
    monkeypatch.setattr(run_blocks.venv, "create", lambda folder, with_pip: None)
    page = tmp_path / "page.md"
    page.write_text("```bash\ntouch made\n```\ntext\n```bash\nls made\necho shown\n```\n")
    assert run_blocks.run(page, None) == ""  # the second block sees what the first has made
    page.write_text("```bash\nfalse\ntrue\n```\n")
    assert "failed with status 1" in run_blocks.run(page, None)
    page.write_text("```bash\necho shown\n```\n```text\nshown\nnot shown\n```\n")
    assert run_blocks.run(page, None).splitlines()[1:] == ["not shown"]
