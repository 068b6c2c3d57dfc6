"""What holds and what does not: results.json, the table of claims, and the one-page report.

The claims, and the rules by which they hold, are in the files of the experiments.
"""

import html
import platform
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from minaxis import __version__
from minaxis.paper.claims import Claim, Experiment
from minaxis.paper.lab import RANDOM_AXES
from minaxis.support.files import read_json, write_bytes, write_json

MARKERS = "<!-- results of {} begin -->", "<!-- results of {} end -->"


@dataclass(frozen=True)
class Run:
    """The claims of one run of all experiments, and how it was made."""

    kind: str  # "tiny", of paper/tiny.py, or "open", of paper/open_model.py
    claims: list[Claim]
    settings: dict[str, Any]  # the arguments of the script, "model" and "seed" among them
    seconds: int
    machine: str
    python: str
    torch: str
    minaxis: str


def write_run(
    folder: Path,
    kind: str,
    experiments: Sequence[Experiment],
    *,
    settings: dict[str, Any],
    seconds: float,
) -> Run:
    """Write results.json, which is the same for the same seed, and run.json, which is not.

    Args:
        kind: "tiny" or "open", as in `Run`.
        settings: the arguments of the script.
        seconds: how long the experiments took.
    """
    claims = [claim for experiment in experiments for claim in experiment.claims()]
    results = {
        "kind": kind,
        "claims": [asdict(claim) for claim in claims],
        "experiments": {experiment.name: asdict(experiment) for experiment in experiments},
    }
    run: dict[str, Any] = {
        "settings": settings,
        "seconds": round(seconds),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} thread(s)",
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "minaxis": __version__,
    }
    write_json(folder / "results.json", results)
    write_json(folder / "run.json", run)
    return Run(kind=kind, claims=claims, **run)


def read_run(folder: Path) -> Run:
    """Read what `write_run` wrote.

    Raises:
        ValueError: a file is missing, or another version wrote it.
    """
    results, run = read_json(folder / "results.json"), read_json(folder / "run.json")
    if "claims" not in results:
        raise ValueError(
            f"{folder}/results.json has no claims, so another version wrote it: make it again "
            "with cap_demo.py --all"
        )
    return Run(kind=results["kind"], claims=[Claim(**c) for c in results["claims"]], **run)


@dataclass(frozen=True)
class Row:
    """One claim over several runs, as the table shows it."""

    claim: str
    paper: str
    here: str
    control: str
    verdict: str


def merged(runs: Sequence[Run]) -> list[Row]:
    """One row for each claim, with the mean and the range of several runs, and one verdict.

    Where the runs disagree, the verdict is "partly", and says in how many runs the claim holds.
    """
    rows = []
    for claims in zip(*(run.claims for run in runs), strict=True):
        verdicts = [claim.verdict for claim in claims]
        verdict = verdicts[0]
        if len(set(verdicts)) > 1:
            verdict = f"partly (holds in {verdicts.count('holds')} of {len(verdicts)})"
        here, control = ([c.here for c in claims], [c.control for c in claims])
        rows.append(Row(claims[0].text, claims[0].paper, _spread(here), _spread(control), verdict))
    return rows


def _spread(values: Sequence[float | None]) -> str:
    """The mean and the range of the values; "" if a run has none."""
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return ""
    mean = sum(numbers) / len(numbers)
    if len(numbers) == 1:
        return f"{mean:.2f}"
    return f"{mean:.2f} ({min(numbers):.2f} to {max(numbers):.2f})"


def table(runs: Sequence[Run]) -> str:
    """The claims as a Markdown table, with a note below it on models, time and versions."""
    rows = merged(runs)
    here = "mean (least to most)" if len(runs) > 1 else "here"
    lines = [f"| claim | paper | {here} | control | verdict |", "|---|---|---|---|---|"]
    lines += [f"| {' | '.join(vars(row).values())} |" for row in rows]
    holds, partly, fails = (
        sum(row.verdict.startswith(word) for row in rows) for word in ("holds", "partly", "not")
    )
    models = ", ".join(f"{r.settings['model']} (seed {r.settings['seed']})" for r in runs)
    seconds = ", ".join(str(run.seconds) for run in runs)
    first = runs[0]
    lines += [
        "",
        f"{holds} claims hold, {partly} hold in part, {fails} do not. Runs: {models}; {seconds} s "
        f"on {first.machine}, torch {first.torch}, minaxis {first.minaxis}. The control is the "
        f"strongest of {RANDOM_AXES} random directions of the same length, or a model with random "
        "weights, or what the claim itself names.",
    ]
    return "\n".join(lines) + "\n"


def write_docs(page: Path, figures: Path, folders: Sequence[Path]) -> None:
    """Put the table of some runs between the page's markers, and copy the first run's figures.

    Args:
        page: a page that has the two markers of the runs' kind, once each.
        figures: the folder whose subfolder for the runs' kind gets the PNG files.
        folders: the folders in which `cap_demo.py --all` wrote the runs.
    """
    runs = [read_run(folder) for folder in folders]
    kind = runs[0].kind
    if any(run.kind != kind for run in runs):
        raise ValueError("a table has runs of one kind: all on tiny models, or all on open models")
    if not page.is_file():
        raise ValueError(f"{page}: no such file; run this in a checkout of the repository")
    text = page.read_text(encoding="utf-8")
    begin, end = (marker.format(kind) for marker in MARKERS)
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"{page}: expected one {begin} and one {end}, to put the table between")
    before, after = text.split(begin)[0], text.split(end)[1]
    write_bytes(page, f"{before}{begin}\n{table(runs)}{end}{after}".encode())
    (figures / kind).mkdir(parents=True, exist_ok=True)
    for figure in sorted(folders[0].glob("*.png")):
        shutil.copyfile(figure, figures / kind / figure.name)


def write_html(path: Path, run: Run, figures: dict[str, str]) -> None:
    """Write a page with the table and every figure, which needs no other file and no network."""
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in vars(row).values()) + "</tr>"
        for row in merged([run])
    )
    parts = "".join(
        f"<figure><h2>{html.escape(name.replace('-', ' '))}</h2>{svg}</figure>"
        for name, svg in figures.items()
    )
    made = f"{run.machine}, torch {run.torch}, minaxis {run.minaxis}"
    page = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>minaxis: the paper in miniature</title>
<style>
body {{ font: 16px/1.5 sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff }}
table {{ border-collapse: collapse; width: 100% }}
td, th {{ border-bottom: 1px solid #ddd; padding: .3rem .6rem; text-align: left }}
figure {{ margin: 2rem 0 }}
svg {{ max-width: 100%; height: auto }}
</style>
<h1>The paper in miniature</h1>
<p>Model {html.escape(run.settings["model"])}, seed {run.settings["seed"]}, {run.seconds} s
({html.escape(made)}).
The control is the strongest of several random directions of the same length, or a model with random
weights; the figures show it in grey. Intervals are 95 %.</p>
<table><tr><th>claim<th>paper<th>here<th>control<th>verdict</tr>{rows}</table>
{parts}
</html>
"""
    write_bytes(path, page.encode())
