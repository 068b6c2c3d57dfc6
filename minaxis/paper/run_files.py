"""The files of a run of all experiments: results.json, and run.json on how it was made."""

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from minaxis import __version__
from minaxis.paper.claims import Claim, Experiment, Rule
from minaxis.paper.space import PersonaSpace
from minaxis.support.files import read_json, write_json
from minaxis.support.schema import Number, Plain, Whole, show
from minaxis.support.stats import Estimate

_ESTIMATE = {"value": Number(), "low": Number(), "high": Number()}
_BOUND = (Number(), None)
_POSITION = {"coordinates": [Number(), "components"], str: object}
RESULTS = {
    "kind": ("tiny", "open"),
    "claims": [
        {"text": str, "paper": str, "here": _ESTIMATE, "control": (_ESTIMATE, None),
         "rule": {"at_least": _BOUND, "at_most": _BOUND}, "control_must_fail": bool,
         "of_paper": bool, "failed_precondition": str, "verdict": str}
    ],
    "experiments": {
        PersonaSpace.name: {"positions": {str: _POSITION}, str: object}, str: {str: object}
    },
}  # fmt: skip
RUN = {
    "settings": {"model": str, "seed": Whole(), str: Plain()}, "seconds": Whole(0), "machine": str,
    "python": str, "torch": str, "minaxis": str,
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """The results and claims of one run of all experiments, and how it was made."""

    kind: str  # "tiny", of paper/tiny.py, or "open", of paper/open_model.py
    claims: list[Claim]
    experiments: dict[str, Any]  # name -> the fields of the experiment
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
    fields = {experiment.name: asdict(experiment) for experiment in experiments}
    results = {
        "kind": kind,
        "claims": [asdict(claim) | {"verdict": claim.verdict} for claim in claims],
        "experiments": fields,
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
    return Run(kind=kind, claims=claims, experiments=fields, **run)


def read_run(folder: Path) -> Run:
    """Read what `write_run` wrote.

    Raises:
        ValueError: a file is missing, or another version wrote it.
    """
    try:
        results = read_json(folder / "results.json", RESULTS)
        run = read_json(folder / "run.json", RUN)
    except ValueError as e:
        raise ValueError(
            f"{e}. If another version wrote it, make it again with cap_demo.py --all"
        ) from None
    claims = [_claim(claim) for claim in results["claims"]]
    for claim in claims:
        needed = claim.control_must_fail and not claim.failed_precondition  # else it is not tested
        if needed and claim.control is None:
            raise ValueError(f"{folder}/results.json: a claim needs a control: {show(claim.text)}")
    return Run(kind=results["kind"], claims=claims, experiments=results["experiments"], **run)


def _claim(fields: dict[str, Any]) -> Claim:
    """The claim with these fields in results.json."""
    control = fields["control"] and Estimate(**fields["control"])
    changed = {"here": Estimate(**fields["here"]), "rule": Rule(**fields["rule"])}
    known = {name: value for name, value in fields.items() if name != "verdict"}
    return Claim(**known | changed | {"control": control})
