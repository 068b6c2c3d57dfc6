"""What held and what did not: the table of claims, the one-page report, the README's fragment.

The claims, and the rules by which they hold, stand in the files of minaxis/paper/.
"""

import html
import platform
from collections.abc import Sequence
from pathlib import Path

import torch

from minaxis import __version__
from minaxis.paper import base, capability, costs, drift, jailbreaks, open_model, space, steering
from minaxis.paper.claims import Claim
from minaxis.paper.conditions import CONTROLS
from minaxis.support.files import read_json, write_bytes, write_json

MARKS = "<!-- results of {} begin -->", "<!-- results of {} end -->"


TINY = {
    "persona space": space.claims,
    "steering": steering.claims,
    "jailbreaks": jailbreaks.claims,
    "drift": drift.claims,
    "capability": capability.claims,
    "base and chat": base.claims,
    "costs": costs.claims,
}
OPEN = {
    "persona space": space.claims,
    "steering": open_model.steering_claims,
    "secrets": open_model.secrets_claims,
    "drift": open_model.drift_claims,
    "capability": open_model.capability_claims,
    "fires": lambda found: [costs.fired(found)],
}


def kind(results: dict) -> str:
    """Which experiments these are: "tiny", of paper/tiny.py, or "open", of paper/open_model.py."""
    return "open" if "secrets" in results else "tiny"


def claims(results: dict) -> list[Claim]:
    """Every claim that these results speak about."""
    told = OPEN if kind(results) == "open" else TINY
    return [c for name, tell in told.items() if name in results for c in tell(results[name])]


def merged(runs: Sequence[dict]) -> list[dict]:
    """The claims of several runs side by side: mean, least and most, and one verdict.

    Where the runs disagree, the verdict is "partly" and says in how many it held.
    """
    rows = []
    for several in zip(*(claims(run["results"]) for run in runs), strict=True):
        words = [c.verdict for c in several]
        word = words[0]
        if len(set(words)) > 1:
            word = f"partly (holds in {words.count('holds')} of {len(words)})"
        rows.append(
            {
                "claim": several[0].text,
                "paper": several[0].paper,
                "here": _spread([c.here for c in several]),
                "control": _spread([c.control for c in several]),
                "verdict": word,
            }
        )
    return rows


def _spread(values: Sequence[float | None]) -> str:
    if None in values:
        return ""
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.2f}"
    return f"{mean:.2f} ({min(values):.2f} to {max(values):.2f})"


def write_run(folder: Path, results: dict, about: dict, seconds: float) -> dict:
    """Write results.json, the same for the same seed, and run.json, what is not; return both.

    Args:
        about: the settings of the run, "model" and "seed" among them.
    """
    run = {
        "settings": about,
        "seconds": round(seconds),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} thread(s)",
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "minaxis": __version__,
    }
    write_json(folder / "results.json", results)
    write_json(folder / "run.json", run)
    return run | {"results": results}


def read_run(folder: Path) -> dict:
    """What `write_run` wrote."""
    return read_json(folder / "run.json") | {"results": read_json(folder / "results.json")}


def table(runs: Sequence[dict]) -> str:
    """The claims as a Markdown table, and under it what they were measured on."""
    rows = merged(runs)
    width = "mean (least to most)" if len(runs) > 1 else "here"
    lines = [
        f"| the paper's claim | paper | {width} | control | verdict |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(row.values())} |" for row in rows]
    counts = {w: sum(r["verdict"].startswith(w) for r in rows) for w in ("holds", "partly", "not")}
    made = runs[0]
    models = ", ".join(f"{r['settings']['model']} (seed {r['settings']['seed']})" for r in runs)
    seconds = ", ".join(f"{run['seconds']:.0f}" for run in runs)
    lines += [
        "",
        f"{counts['holds']} hold, {counts['partly']} in part, {counts['not']} not. Runs: {models}; "
        f"{seconds} s on {made['machine']}, torch {made['torch']}, minaxis {made['minaxis']}. "
        f"The control is a random direction of the same length, the strongest of {CONTROLS}, or a "
        "model with random weights, or what the claim itself names.",
    ]
    return "\n".join(lines) + "\n"


def write_readme(path: Path, runs: Sequence[dict]) -> None:
    """Put the table of these runs between the README's markers for their kind."""
    text = path.read_text(encoding="utf-8")
    begin, end = (mark.format(kind(runs[0]["results"])) for mark in MARKS)
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"{path}: expected one {begin} and one {end}, to put the table between")
    before, after = text.split(begin)[0], text.split(end)[1]
    write_bytes(path, f"{before}{begin}\n{table(runs)}{end}{after}".encode())


def write_html(path: Path, run: dict, figures: dict[str, str]) -> None:
    """One page with the table and every figure in it: it needs no other file and no network."""
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row.values()) + "</tr>"
        for row in merged([run])
    )
    parts = "".join(
        f"<figure><h2>{html.escape(name.replace('-', ' '))}</h2>{svg}</figure>"
        for name, svg in figures.items()
    )
    made = f"{run['machine']}, torch {run['torch']}, minaxis {run['minaxis']}"
    settings = run["settings"]
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
<p>{html.escape(settings["model"])}, seed {settings["seed"]}, {run["seconds"]} s
({html.escape(made)}).
The control is a random direction of the same length (the strongest), or random weights; in the
figures it is grey. Intervals are 95 %.</p>
<table><tr><th>the paper's claim<th>paper<th>here<th>control<th>verdict</tr>{rows}</table>
{parts}
</html>
"""
    write_bytes(path, page.encode())
