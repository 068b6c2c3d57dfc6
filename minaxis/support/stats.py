"""How certain is a number? Rates, changes and means with intervals, and cross-validation."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from math import exp, hypot, inf, sqrt

import torch
from torch import Tensor

Z = 1.96  # standard errors on each side of a 95 % interval


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float

    def __neg__(self) -> "Estimate":
        return Estimate(-self.value, -self.high, -self.low)

    def __sub__(self, other: "Estimate") -> "Estimate":
        """The difference of two independent numbers. The distances to the ends add as squares."""
        value = self.value - other.value
        low = hypot(self.value - self.low, other.high - other.value)
        high = hypot(self.high - self.value, other.value - other.low)
        return Estimate(value, value - low, value + high)


@dataclass(frozen=True)
class Rate:
    """The share of n replies for which something is true, with a 95 % interval."""

    rate: float
    low: float
    high: float
    n: int

    @property
    def estimate(self) -> Estimate:
        return Estimate(self.rate, self.low, self.high)


@dataclass(frozen=True)
class PairedChange:
    """By how much a rate changed on the same n questions, with a 95 % interval."""

    difference: float
    low: float
    high: float
    gained: int  # questions for which it became true
    lost: int  # questions for which it is no longer true
    n: int

    @property
    def estimate(self) -> Estimate:
        # The interval adds half a question to each case, so its end may miss the number itself.
        return Estimate(
            self.difference, min(self.low, self.difference), max(self.high, self.difference)
        )


@dataclass(frozen=True)
class MeanWithError:
    """A mean and its standard error."""

    mean: float
    error: float

    @property
    def estimate(self) -> Estimate:
        return Estimate(self.mean, self.mean - Z * self.error, self.mean + Z * self.error)


def share(flags: Iterable[bool]) -> float:
    """The share of flags that are true."""
    flags = list(flags)
    return sum(flags) / len(flags)


def rate(flags: Iterable[bool]) -> Rate:
    """The share of flags that are true, with Wilson's 95 % interval.

    The usual interval of +-1.96 standard errors has width zero at 0 and at 1, where the rates of
    small models often are. It would mean that eight of eight could never have been seven.
    """
    flags = list(flags)
    n, p = len(flags), share(flags)
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    # Rounding may push an end of the interval past p, or out of [0, 1].
    low, high = max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))
    return Rate(p, low, high, n)


def difference(a: Rate, b: Rate) -> Estimate:
    """Rate a minus rate b, of different questions, with Newcombe's 95 % interval."""
    return a.estimate - b.estimate


def ratio(a: Rate, b: Rate) -> Estimate:
    """Rate a over rate b, of different questions, with Walter's 95 % interval.

    Half a reply is added to each count, so that the ratio exists even where a count is zero.
    """
    hits_a, hits_b = (r.rate * r.n + 0.5 for r in (a, b))
    value = hits_a / (a.n + 1) / (hits_b / (b.n + 1))
    error = sqrt(1 / hits_a - 1 / (a.n + 1) + 1 / hits_b - 1 / (b.n + 1))  # of its logarithm
    return Estimate(value, value * exp(-Z * error), value * exp(Z * error))


def mean_of(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of independent numbers, each with the same weight."""
    n = len(estimates)
    value = sum(e.value for e in estimates) / n
    low = hypot(*(e.value - e.low for e in estimates)) / n
    high = hypot(*(e.high - e.value for e in estimates)) / n
    return Estimate(value, value - low, value + high)


def mean_and_range(values: Sequence[float]) -> Estimate:
    """The mean of a few numbers, with the least and the largest in place of an interval."""
    return Estimate(sum(values) / len(values), min(values), max(values))


def bootstrap(
    statistic: Callable[[Tensor], float],
    n: int,
    *,
    within: tuple[float, float] = (-inf, inf),
    samples: int = 200,
    seed: int = 0,
) -> Estimate:
    """A statistic of n items with an interval of 1.96 bootstrap standard errors on each side.

    The interval is centred on the statistic of all items, because resampled items repeat, and a
    statistic of fewer distinct items may be biased.

    Args:
        statistic: called with the indices (n,) of the items to use, some of them repeatedly.
        within: the least and the largest value that the statistic can have.
        samples: how often the items are drawn anew.
    """
    generator = torch.Generator().manual_seed(seed)
    value = statistic(torch.arange(n))
    drawn = [statistic(torch.randint(n, (n,), generator=generator)) for _ in range(samples)]
    half = Z * torch.tensor(drawn, dtype=torch.float64).std().item()
    return Estimate(value, max(within[0], value - half), min(within[1], value + half))


def paired_change(before: Iterable[bool], after: Iterable[bool]) -> PairedChange:
    """By how much a rate changed on the same questions, with Agresti and Min's 95 % interval.

    Only questions for which the flag changed carry information. The interval adds half a question
    to each of the four cases, so that it has a width even if no flag changed.
    """
    pairs = list(zip(before, after, strict=True))
    gained, lost = (sum(a == want and b != want for b, a in pairs) for want in (True, False))
    n, up, down = len(pairs) + 2, gained + 0.5, lost + 0.5
    centre = (up - down) / n
    half = Z * sqrt((up + down) - (up - down) ** 2 / n) / n
    difference = (gained - lost) / len(pairs)
    return PairedChange(difference, centre - half, centre + half, gained, lost, len(pairs))


def mean_with_error(values: Tensor) -> MeanWithError:
    """The mean of values (N,) and its standard error. NaN (an empty reply) is left out."""
    values = values[~values.isnan()]
    return MeanWithError(values.mean().item(), (values.std() / sqrt(len(values))).item())


def auc(scores: Tensor, positive: Tensor) -> float:
    """How well scores (n,) separate positives (n,) bool from negatives. NaN is left out.

    Returns:
        The area under the ROC curve: how often a positive has the higher score, of all pairs of a
        positive and a negative. It is .5 for chance, and where there are no pairs.
    """
    high, low = (scores[flags & ~scores.isnan()] for flags in (positive, ~positive))
    wins = (high[:, None] > low).float() + (high[:, None] == low) / 2  # a tie is half a win
    return wins.mean().item() if wins.numel() else 0.5


def correlation(x: Tensor, y: Tensor) -> float:
    """Pearson's correlation of x (n,) and y (n,). NaN is left out. It is 0 if one is constant."""
    kept = ~(x.isnan() | y.isnan())
    return torch.corrcoef(torch.stack([x[kept], y[kept]]))[0, 1].nan_to_num().item()


def slopes(projections: Tensor) -> Tensor:
    """The least-squares slope per turn of each row of (N, turns): (N,)."""
    x = torch.arange(projections.shape[1]) - (projections.shape[1] - 1) / 2
    return projections @ x / x.square().sum()


def ridge_r2(x: Tensor, y: Tensor, groupings: Sequence[Tensor], *, folds: int = 5) -> Estimate:
    """How well x (N, D) predicts y (N,) linearly, by cross-validation.

    Args:
        groupings: each (N,) integers. A prediction comes from a fit without any sample that shares
            a group of any grouping with the predicted one: the message, say, or the conversation.

    Returns:
        R^2: the share of the variance that is explained in samples which the fit has not seen. If
        it is below zero, the mean would have been the better guess. The interval resamples the
        groups of the grouping that makes it widest.
    """
    errors = torch.zeros_like(y)
    fold_of = torch.stack([groups % folds for groups in groupings])  # (groupings, N)
    for block in product(range(folds), repeat=len(groupings)):
        same_fold = fold_of == torch.tensor(block)[:, None]
        test, train = same_fold.all(0), ~same_fold.any(0)
        x_mean, x_std = x[train].mean(0), x[train].std(0) + 1e-6
        a, b = (x[train] - x_mean) / x_std, (x[test] - x_mean) / x_std
        y_mean = y[train].mean()
        # Every feature has variance 1, so the penalty weighs as much as a hundredth of the data.
        gram = a.T @ a + 0.01 * len(a) * torch.eye(a.shape[1])
        weights = torch.linalg.solve(gram, a.T @ (y[train] - y_mean))
        errors[test] = (y[test] - y_mean - b @ weights).square()
    squares = (y - y.mean()).square()

    def interval(groups: Tensor) -> Estimate:
        distinct, rows = groups.unique(return_inverse=True)
        left, all_of_it = (
            torch.zeros(len(distinct)).index_add(0, rows, v) for v in (errors, squares)
        )
        return bootstrap(
            lambda chosen: 1 - (left[chosen].sum() / all_of_it[chosen].sum()).item(), len(distinct)
        )

    return max(map(interval, groupings), key=lambda estimate: estimate.high - estimate.low)
