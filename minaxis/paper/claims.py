"""What an experiment returns: numbers, claims with verdicts, and figures.

A claim is one number with its 95 % interval, and one rule. Its verdict is one of five:

    holds            the whole interval lies inside the rule
    not              the whole interval lies outside
    unclear          the interval crosses a bound of the rule
    not specific     the control fulfils the rule, too, or its interval contains our number
    not tested: ...  what the claim takes for granted is not so

A control of several random directions is their mean. Its interval goes from the least to the
largest of them, but docs/results.md names three kinds of rows in which it is narrower.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from minaxis.support.stats import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOT_TESTED = "not tested"


@dataclass(frozen=True)
class Rule:
    """Where a number must lie for a claim to hold. A rule without bounds gives no verdict."""

    at_least: float | None = None
    at_most: float | None = None

    def __str__(self) -> str:
        if self.at_least is not None and self.at_most is not None:
            return f"{self.at_least:g} to {self.at_most:g}"
        if self.at_least is not None:
            return f"at least {self.at_least:g}"
        return f"at most {self.at_most:g}" if self.at_most is not None else ""

    def contains(self, estimate: Estimate) -> bool:
        """Does the whole interval lie inside?"""
        return (self.at_least is None or estimate.low >= self.at_least) and (
            self.at_most is None or estimate.high <= self.at_most
        )

    def excludes(self, estimate: Estimate) -> bool:
        """Does the whole interval lie outside?"""
        return (self.at_least is not None and estimate.high < self.at_least) or (
            self.at_most is not None and estimate.low > self.at_most
        )


@dataclass(frozen=True)
class Claim:
    """One claim, the paper's number for it, and the same number measured here."""

    text: str
    paper: str  # the paper's number, and its section or figure; "" if it has none
    here: Estimate
    rule: Rule
    control: Estimate | None = None  # the same number for the control, if the claim has one
    control_must_fail: bool = False  # does the claim hold only if the control does not?
    of_paper: bool = True  # False: the paper does not claim this
    failed_precondition: str = ""  # what the claim takes for granted but is not so

    @property
    def verdict(self) -> str:
        """One of the five verdicts of this module, or "" for a rule without bounds."""
        if self.failed_precondition:
            return f"{NOT_TESTED}: {self.failed_precondition}"
        if not str(self.rule):
            return ""
        if self.rule.excludes(self.here):
            return "not"
        if not self.rule.contains(self.here):
            return "unclear"
        return "not specific" if self.control_must_fail and self._control_does_it() else "holds"

    def _control_does_it(self) -> bool:
        control = self.control
        assert control is not None, "a claim whose control must fail has a control"
        return self.rule.contains(control) or control.low <= self.here.value <= control.high


def kind(verdict: str) -> str:
    """A verdict without its reason."""
    return verdict.split(":")[0]


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
