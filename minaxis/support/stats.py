"""How certain is a number? Rates, changes and means with intervals, and cross-validation."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

Z = 1.96  # standard errors on each side of a 95 % interval


@dataclass(frozen=True)
class Rate:
    """The share of n replies for which something is true, with a 95 % interval."""

    rate: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class PairedChange:
    """By how much a rate changed on the same n questions, with a 95 % interval."""

    difference: float
    low: float
    high: float
    gained: int  # questions for which it became true
    lost: int  # questions for which it is no longer true
    n: int


@dataclass(frozen=True)
class MeanWithError:
    """A mean and its standard error."""

    mean: float
    error: float


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


def slopes(projections: Tensor) -> Tensor:
    """The least-squares slope per turn of each row of (N, turns): (N,)."""
    x = torch.arange(projections.shape[1]) - (projections.shape[1] - 1) / 2
    return projections @ x / x.square().sum()


def ridge_r2(x: Tensor, y: Tensor, groups: Tensor, *, folds: int = 5) -> float:
    """How well x (N, D) predicts y (N,) linearly, by cross-validation.

    Args:
        groups: (N,) integers. Samples of one group (one conversation) are in the same fold.

    Returns:
        R^2: the share of the variance that is explained in samples which the fit has not seen. If
        it is below zero, the mean would have been the better guess.
    """
    error = 0.0
    for fold in range(folds):
        test = groups % folds == fold
        x_mean, x_std = x[~test].mean(0), x[~test].std(0) + 1e-6
        a, b = (x[~test] - x_mean) / x_std, (x[test] - x_mean) / x_std
        y_mean = y[~test].mean()
        # Every feature has variance 1, so the penalty weighs as much as a hundredth of the data.
        gram = a.T @ a + 0.01 * len(a) * torch.eye(a.shape[1])
        weights = torch.linalg.solve(gram, a.T @ (y[~test] - y_mean))
        error += (y[test] - y_mean - b @ weights).square().sum().item()
    return 1 - error / (y - y.mean()).square().sum().item()
