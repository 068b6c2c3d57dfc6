"""How sure is a number? Small tools, each with its interval or its cross-validation."""

from collections.abc import Iterable
from math import sqrt

import torch
from torch import Tensor

Z = 1.96  # standard errors on each side of a 95 % interval


def rate(flags: Iterable[bool]) -> dict[str, float]:
    """The share of true flags, with Wilson's 95 % interval.

    The usual +-1.96 standard errors would be of width zero at 0 and at 1, where small models
    often are: as if eight of eight could never have been seven.
    """
    flags = list(flags)
    n, p = len(flags), sum(flags) / len(flags)
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    low, high = max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))  # of rounding
    return {"rate": p, "low": low, "high": high, "n": n}


def paired(before: Iterable[bool], after: Iterable[bool]) -> dict[str, float]:
    """By how much a rate changed on the same questions, with a 95 % interval.

    Only the questions whose answer changed tell anything. Agresti and Min's interval counts half
    a question more in each of the four cases, so that no change at all is not certainty.
    """
    pairs = list(zip(before, after, strict=True))
    gained, lost = (sum(a == want and b != want for b, a in pairs) for want in (True, False))
    n, up, down = len(pairs) + 2, gained + 0.5, lost + 0.5
    centre = (up - down) / n
    half = Z * sqrt((up + down) - (up - down) ** 2 / n) / n
    return {
        "difference": (gained - lost) / len(pairs),
        "low": centre - half,
        "high": centre + half,
        "gained": gained,
        "lost": lost,
        "n": len(pairs),
    }


def mean_error(values: Tensor) -> dict[str, float]:
    """The mean of values (N,) and its standard error; NaN (a reply without a word) is left out."""
    values = values[~values.isnan()]
    return {"mean": values.mean().item(), "error": (values.std() / sqrt(len(values))).item()}


def slopes(along: Tensor) -> Tensor:
    """The least-squares slope of each row of (N, turns), per turn."""
    x = torch.arange(along.shape[1]) - (along.shape[1] - 1) / 2
    return along @ x / x.square().sum()


def ridge_r2(x: Tensor, y: Tensor, groups: Tensor, folds: int = 5) -> float:
    """How well x (N, D) predicts y (N,), linearly: the share of variance explained in samples
    that the fit has not seen. Below zero, the mean would have been the better guess.

    Args:
        groups: (N,) integers; samples of one group (one conversation) share a fold.
    """
    error = 0.0
    for fold in range(folds):
        test = groups % folds == fold
        x_mean, x_std = x[~test].mean(0), x[~test].std(0) + 1e-6
        a, b = (x[~test] - x_mean) / x_std, (x[test] - x_mean) / x_std
        y_mean = y[~test].mean()
        # Every feature has variance 1: the penalty weighs as much as a hundredth of the data.
        gram = a.T @ a + 0.01 * len(a) * torch.eye(a.shape[1])
        weights = torch.linalg.solve(gram, a.T @ (y[~test] - y_mean))
        error += (y[test] - y_mean - b @ weights).square().sum().item()
    return 1 - error / (y - y.mean()).square().sum().item()
