"""A claim of the paper, measured here, and whether it holds by a rule that is written down."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """One finding of the paper, and the same number here."""

    text: str
    paper: str  # the paper's number and where it stands
    here: float
    control: float | None  # the same number for random directions (the strongest) or weights
    verdict: str


def verdict(holds: bool, partly: bool) -> str:
    """The word for a claim."""
    return "holds" if holds else "partly" if partly else "not"
