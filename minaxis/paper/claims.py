"""What an experiment returns: numbers, claims with verdicts, and figures."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Claim:
    """One claim, the paper's number for it, and the same number measured here."""

    text: str
    paper: str  # the paper's number, and its section or figure
    here: float
    control: float | None  # the same number for the control, if the claim has one
    verdict: str


def verdict(holds: bool, partly: bool) -> str:
    """The verdict on a claim: does it hold, hold in part, or not, by its own two rules?"""
    return "holds" if holds else "partly" if partly else "not"


@dataclass(frozen=True)
class Experiment(ABC):
    """The results of one experiment. A subclass is a dataclass of plain numbers."""

    name: ClassVar[str]

    @abstractmethod
    def claims(self) -> list[Claim]:
        """What the results say about the paper's claims."""

    @abstractmethod
    def figures(self) -> dict[str, "Figure"]:
        """The figures by file name without suffix. This needs matplotlib."""
