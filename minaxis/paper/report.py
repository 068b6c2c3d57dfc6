"""What holds and what does not: the table of claims, and the one-page report.

The claims, and the rules by which they hold, are in the files of the experiments.
"""

import html
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from minaxis.paper.claims import NOT_TESTED, Claim, kind
from minaxis.paper.components import loadings_claims
from minaxis.paper.run_files import Run, read_run
from minaxis.paper.run_files import write_run as write_run  # report.write_run, as scripts call it
from minaxis.paper.space import PersonaSpace
from minaxis.support.files import write_bytes
from minaxis.support.stats import Estimate, mean_and_range

MARKERS = "<!-- results of {} begin -->", "<!-- results of {} end -->"
DIFFERS = "differs between the runs"
VERDICTS = ("holds", "unclear", "not specific", "not", NOT_TESTED, DIFFERS)  # from good to bad


@dataclass(frozen=True)
class Row:
    """One claim over one or several runs, as the table shows it."""

    claim: str
    paper: str
    here: str
    rule: str
    control: str
    verdict: str


def merged(runs: Sequence[Run]) -> list[Row]:
    """One row for each claim: its number and its verdict in one run, or in several together."""
    return [
        Row(
            claim=claims[0].text,
            paper=claims[0].paper if claims[0].of_paper else "only here",
            here=_number([claim.here for claim in claims]),
            rule=str(claims[0].rule),
            control=_number([claim.control for claim in claims]),
            verdict=_verdict([claim.verdict for claim in claims]),
        )
        for claims in _by_claim(runs)
    ]


def _by_claim(runs: Sequence[Run]) -> list[list[Claim]]:
    """For each claim, what the runs say about it, and then the claims about all runs together.

    Raises:
        ValueError: the runs do not have the same claims.
    """
    if len({tuple((claim.text, claim.rule) for claim in run.claims) for run in runs}) > 1:
        raise ValueError("these runs do not have the same claims and rules: make them again")
    spaces = [run.experiments[PersonaSpace.name] for run in runs]
    return [list(claims) for claims in zip(*(run.claims for run in runs), strict=True)] + [
        [claim] for claim in loadings_claims([space["positions"] for space in spaces])
    ]


def _number(estimates: Sequence[Estimate | None]) -> str:
    """One run's number with its interval, or the mean and the range of several runs' numbers."""
    known = [estimate for estimate in estimates if estimate is not None]
    if not known:
        return ""
    if len(known) == 1:
        return f"{known[0].value:.2f} [{known[0].low:.2f}, {known[0].high:.2f}]"
    mean = mean_and_range([estimate.value for estimate in known])
    return f"{mean.value:.2f} ({mean.low:.2f} to {mean.high:.2f})"


def _verdict(verdicts: Sequence[str]) -> str:
    """The verdict of all runs. Where they differ, each verdict with its number of runs."""
    if len(set(verdicts)) == 1:
        return verdicts[0]
    kinds = [kind(verdict) for verdict in verdicts]
    counts = ", ".join(f"{v} in {kinds.count(v)}" for v in VERDICTS if v in kinds)
    return f"{counts} of {len(kinds)}"


def tally(runs: Sequence[Run]) -> str:
    """How many of the paper's claims have which verdict, as one sentence."""
    verdicts = []
    for claims in _by_claim(runs):
        kinds = {kind(claim.verdict) for claim in claims}
        if claims[0].of_paper:
            verdicts.append(kinds.pop() if len(kinds) == 1 else DIFFERS)
    counts = ", ".join(f"{v} {verdicts.count(v)}" for v in VERDICTS if v in verdicts)
    return f"The paper's {len(verdicts)} claims: {counts}."


def table(runs: Sequence[Run]) -> str:
    """The claims as a Markdown table, with a note below it on models, time and versions."""
    here = "mean (least to most)" if len(runs) > 1 else "here [95 % interval]"
    lines = [f"| claim | paper | {here} | rule | control | verdict |", "|---|---|---|---|---|---|"]
    lines += [f"| {' | '.join(map(_in_markdown, vars(row).values()))} |" for row in merged(runs)]
    models = ", ".join(f"{r.settings['model']} (seed {r.settings['seed']})" for r in runs)
    seconds = ", ".join(str(run.seconds) for run in runs)
    first = runs[0]
    lines += [
        "",
        _in_markdown(
            f"{tally(runs)} Runs: {models}; {seconds} s on {first.machine}, torch {first.torch}, "
            f"minaxis {first.minaxis}."
        ),
    ]
    return "\n".join(lines) + "\n"


def _in_markdown(text: str) -> str:
    """A text that stays on its line and in its cell, and adds no HTML to the page."""
    return " ".join(text.split()).replace("<", "&lt;").replace("|", "\\|")


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
    made = (
        f"{run.settings['model']}, seed {run.settings['seed']}, {run.seconds} s "
        f"({run.machine}, torch {run.torch}, minaxis {run.minaxis})"
    )
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
<p>Model {html.escape(made)}.
{html.escape(tally([run]))} The figures show the control in grey. Intervals are 95 %. A
control of several random directions is their mean, with the least and the largest of them; where a
cap halves harm or keeps the Assistant it has the 95 % interval of the mean, and for slopes the
sampling error.</p>
<table><tr><th>claim<th>paper<th>here<th>rule<th>control<th>verdict</tr>{rows}</table>
{parts}
</html>
"""
    write_bytes(path, page.encode())
