"""Make docs/tour.ipynb from docs/tour.py: run its cells, and keep what they print and draw.

    python docs/make_tour.py             # 2 minutes on two cores; needs the extra `all` and smollm2
    python docs/make_tour.py --check     # run the cells again, and compare with the notebook

In tour.py, `# %%` begins a cell of code, and `# %% [markdown]` a cell of text, written as comments.
The cells run one after the other in one namespace, as Jupyter runs them. Jupyter is not needed: a
notebook is a JSON file, and plain `exec` runs wherever minaxis does.

The check compares words exactly and numbers to 2 %. Seconds may differ. A figure is compared by the
data that it shows, which stand beside its picture, because each version of matplotlib draws
slightly other pixels.
"""

import argparse
import base64
import json
import os
import re
import sys
import time
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
SOURCE, NOTEBOOK = FOLDER / "tour.py", FOLDER / "tour.ipynb"
MARK = re.compile(r"^# %%( \[markdown\])?\n", re.M)
SECONDS = re.compile(r"\d+(\.\d+)? s\b")
NUMBER = re.compile(r"-?\d+\.?\d*(?:e[+-]?\d+)?")

Json = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """A cell of tour.py."""

    is_text: bool
    source: str
    line: int  # where its source begins in tour.py, from 1


def read_cells(text: str) -> list[Cell]:
    """The cells of a file with cell marks. What stands before the first mark is left out."""
    marks = list(MARK.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    cells = []
    for mark, end in zip(marks, ends, strict=True):
        source, is_text = text[mark.end() : end].strip("\n"), mark[1] is not None
        if is_text:
            source = re.sub(r"^# ?", "", source, flags=re.M)
        cells.append(Cell(is_text, source, text.count("\n", 0, mark.end()) + 1))
    return cells


def run_cells(cells: list[Cell]) -> list[list[Json]]:
    """Run the cells of code in order, and return each cell's outputs: its text and its figures."""
    os.environ["MPLBACKEND"] = "Agg"  # matplotlib is installed by the first cell, if at all
    namespace: Json = {"__name__": "__main__"}
    outputs: list[list[Json]] = []
    for number, cell in enumerate(cells, 1):
        outputs.append([])
        if cell.is_text:
            continue
        printed, started = StringIO(), time.monotonic()
        # After so many empty lines, the line numbers of a traceback are those of tour.py.
        code = compile("\n" * (cell.line - 1) + cell.source, str(SOURCE), "exec")
        with redirect_stdout(printed):
            exec(code, namespace)
        if text := printed.getvalue():
            outputs[-1].append({"output_type": "stream", "name": "stdout", "text": text})
        pyplot: Any = sys.modules.get("matplotlib.pyplot")
        for figure in map(pyplot.figure, pyplot.get_fignums()) if pyplot else ():
            picture = BytesIO()
            figure.savefig(picture, format="png", dpi=100, metadata={"Software": None})
            data = {
                "image/png": base64.b64encode(picture.getvalue()).decode(),
                "text/plain": describe(figure),
            }
            outputs[-1].append({"output_type": "display_data", "data": data, "metadata": {}})
            pyplot.close(figure)
        print(f"cell {number} of {len(cells)}: {time.monotonic() - started:.1f} s", flush=True)
    return outputs


def describe(figure: Any) -> str:
    """What a figure shows, in words and numbers: titles, and all lines and bars with a label."""
    lines = []
    for ax in figure.axes:
        lines.append("; ".join([ax.get_title(loc="left"), ax.get_xlabel(), ax.get_ylabel()]))
        shown = {line.get_label(): line.get_xydata().tolist() for line in ax.get_lines()}
        for bars in ax.containers:
            heights = [(bar.get_height(),) for bar in getattr(bars, "patches", [])]
            shown[bars.get_label()] = heights
        for label, points in shown.items():
            if not str(label).startswith("_"):  # matplotlib names all else so, like error bars
                numbers = ", ".join(" ".join(f"{x:.3g}" for x in point) for point in points)
                lines.append(f"{label}: {numbers}")
    return "\n".join(lines)


def make_notebook(cells: list[Cell], outputs: list[list[Json]]) -> Json:
    """The notebook as JSON, in nbformat 4.5."""
    made: list[Json] = []
    for number, (cell, out) in enumerate(zip(cells, outputs, strict=True), 1):
        lines = cell.source.splitlines(keepends=True)
        made.append({"cell_type": "markdown", "id": f"cell-{number}", "metadata": {}})
        if not cell.is_text:
            executed = sum(not c.is_text for c in cells[:number])
            made[-1] |= {"cell_type": "code", "execution_count": executed, "outputs": out}
        made[-1]["source"] = lines
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def differences(stored: Json, fresh: Json) -> list[str]:
    """One line for each cell that differs in its source, its text or its figures' data."""
    if len(stored["cells"]) != len(fresh["cells"]):
        return [f"{len(stored['cells'])} cells are stored, tour.py has {len(fresh['cells'])}"]
    found = []
    for number, (old, new) in enumerate(zip(stored["cells"], fresh["cells"], strict=True), 1):
        if old["source"] != new["source"]:
            found.append(f"cell {number}: tour.py has changed since the notebook was made")
        elif not agree(old_text := text_of(old), new_text := text_of(new)):
            found.append(f"cell {number} gave\n{old_text}\nand gives\n{new_text}")
    return found


def text_of(cell: Json) -> str:
    """All that a cell has printed, and the data of its figures."""
    outputs = cell.get("outputs", [])
    return "\n".join(out.get("text") or out["data"]["text/plain"] for out in outputs)


def agree(old: str, new: str) -> bool:
    """Are two texts equal up to seconds, and up to 2 % in other numbers?"""
    old, new = SECONDS.sub("", old), SECONDS.sub("", new)
    if NUMBER.sub("#", old).split() != NUMBER.sub("#", new).split():
        return False
    pairs = zip(NUMBER.findall(old), NUMBER.findall(new), strict=True)
    return all(abs(float(a) - float(b)) <= 0.02 * max(1.0, abs(float(a))) for a, b in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare with the stored notebook")
    check, started = parser.parse_args().check, time.monotonic()
    cells = read_cells(SOURCE.read_text(encoding="utf-8"))
    notebook = make_notebook(cells, run_cells(cells))
    if check:
        found = differences(json.loads(NOTEBOOK.read_text(encoding="utf-8")), notebook)
        print(f"{len(cells)} cells after {time.monotonic() - started:.0f} s")
        sys.exit("\n\n".join(found) or 0)
    text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    NOTEBOOK.write_text(text, encoding="utf-8")
    kilobytes = len(text.encode()) / 1000
    print(f"{NOTEBOOK}: {kilobytes:.0f} kB after {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
