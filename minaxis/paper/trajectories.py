"""Projections over the turns of conversations, as numbers and as a figure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor

from minaxis.paper.figures import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, load_pyplot
from minaxis.paper.lab import Compared
from minaxis.support.stats import MeanWithError, mean_with_error, slopes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"coding": BLUE, "writing": GREEN, "therapy": PURPLE, "philosophy": ORANGE}


@dataclass(frozen=True)
class Trajectory:
    """Projections of the replies, turn by turn."""

    projections: list[MeanWithError]  # by turn
    slope: MeanWithError  # per turn: the mean of the conversations' own slopes

    @property
    def fall(self) -> float:
        """By how much the mean projection falls from the first turn to the last."""
        return self.projections[0].mean - self.projections[-1].mean


AnyTrajectory = TypeVar("AnyTrajectory", bound=Trajectory)


def trajectory(projections: Tensor) -> Trajectory:
    """The trajectory of conversations with these projections (N, turns)."""
    return Trajectory(
        projections=[mean_with_error(turn) for turn in projections.T],
        slope=mean_with_error(slopes(projections)),
    )


def trajectory_figure(
    trajectories: Compared[dict[str, AnyTrajectory]],
    *,
    rows: int,
    labels: Mapping[str, str],
    capped_read_again: Mapping[str, Trajectory] | None = None,
) -> tuple["Figure", Sequence[Sequence["Axes"]]]:
    """A figure with the projections in its first row, the baseline left and the cap right.

    Args:
        rows: number of rows of the figure.
        labels: domain -> its name in the legend.
        capped_read_again: the capped replies, read by the model without a cap: dotted lines.

    Returns:
        The figure, and its axes by row and column.
    """
    figure, axes = load_pyplot().subplots(
        rows, 2, figsize=(9, 1.4 + 2.4 * rows), sharex=True, sharey="row", squeeze=False,
        layout="constrained",
    )  # fmt: skip
    draw_trajectories(axes[0], trajectories, projections_with_errors, labels=labels)
    style = "the capped replies, read without the cap"
    for domain, read_again in (capped_read_again or {}).items():
        heights, _ = projections_with_errors(read_again)
        axes[0, 1].plot(
            range(1, len(heights) + 1), heights, ":", color=COLOURS[domain], linewidth=1.3
        )
    if capped_read_again:
        axes[0, 1].plot([], [], ":", color=INK, label=style, linewidth=1.3)
    axes[0, 0].set_ylabel("projection of the reply\n(1 standard error)")
    handles, names = axes[0, 1].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3)
    for column, title in enumerate(("baseline", "capped")):
        axes[0, column].set_title(title)
        axes[-1, column].set_xlabel("turn")
    return figure, axes


def projections_with_errors(trajectory: Trajectory) -> tuple[list[float], list[float]]:
    """The mean projections by turn, and their standard errors."""
    return [p.mean for p in trajectory.projections], [p.error for p in trajectory.projections]


def draw_trajectories(
    axes: Sequence["Axes"],
    trajectories: Compared[dict[str, AnyTrajectory]],
    values: Callable[[AnyTrajectory], tuple[list[float], Any]],
    *,
    labels: Mapping[str, str],
) -> None:
    """Draw the baseline on the left and the cap on the right, there with random caps in grey.

    Args:
        values: returns what to draw of a trajectory: values by turn, and their errors.
    """
    left, right = axes
    label = "capped along random directions, mean"
    for domain in trajectories.random[0]:
        runs = [values(trajectories_of[domain])[0] for trajectories_of in trajectories.random]
        means = [sum(turn) / len(turn) for turn in zip(*runs, strict=True)]
        right.plot(range(1, len(means) + 1), means, color=GREY, linewidth=1, label=label)
        label = "_no label"  # the first line stands for every domain
    for ax, domains in (left, trajectories.baseline), (right, trajectories.capped):
        for domain, trajectory in domains.items():
            heights, errors = values(trajectory)
            ax.errorbar(range(1, len(heights) + 1), heights, errors, color=COLOURS[domain],
                        marker="o", markersize=3, label=labels[domain])  # fmt: skip
