"""What all figures share: one style, and the control always in grey.

Each experiment draws its own figures, in its own file. They need matplotlib, the extra `plot`.
"""

from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minaxis.paper.claims import Experiment
from minaxis.support.files import write_bytes
from minaxis.support.stats import Rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours: every kind of colour vision can tell them apart.
BLUE, ORANGE, GREEN, PURPLE, GOLD = "#0072B2", "#D55E00", "#009E73", "#AA4499", "#E69F00"
GREY, INK = "#9A9A9A", "#222222"
STYLE = {
    # A light background of its own, so that a figure looks the same on a dark page.
    "figure.facecolor": "#FFFFFF",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#E8E8E8",
    "axes.axisbelow": True,
    "font.size": 10,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "errorbar.capsize": 2,
    "svg.hashsalt": "minaxis",  # the same numbers give the same file
}


def load_pyplot() -> Any:
    """Import matplotlib's pyplot.

    Raises:
        ImportError: matplotlib is not installed; the message names the extra.
    """
    try:
        import matplotlib
    except ImportError:
        raise ImportError("figures need matplotlib: pip install 'minaxis[plot]'") from None
    matplotlib.use("Agg", force=False)
    from matplotlib import pyplot

    return pyplot


def with_intervals(rates: Sequence[Rate]) -> tuple[list[float], list[list[float]]]:
    """The rates, and how far their intervals reach below and above, for matplotlib's `yerr`."""
    below = [r.rate - r.low for r in rates]
    above = [r.high - r.rate for r in rates]
    return [r.rate for r in rates], [below, above]


def control_band(
    ax: "Axes", x: Sequence[float], runs: Sequence[Sequence[float]], label: str
) -> None:
    """Draw the mean and the range of the random directions as a line and a band.

    Args:
        runs: the values at each x, for each random direction.
    """
    columns = list(zip(*runs, strict=True))
    ax.fill_between(x, [min(c) for c in columns], [max(c) for c in columns], color=GREY, alpha=0.3)
    ax.plot(x, [sum(c) / len(c) for c in columns], color=GREY, label=label)


def control_bars(
    ax: "Axes", x: Sequence[float], runs: Sequence[Sequence[float]], width: float
) -> None:
    """Draw the mean and the range of the random directions as bars.

    Args:
        runs: the values at each x, for each random direction.
    """
    columns = list(zip(*runs, strict=True))
    means = [sum(c) / len(c) for c in columns]
    spread = [
        [m - min(c) for m, c in zip(means, columns, strict=True)],
        [max(c) - m for m, c in zip(means, columns, strict=True)],
    ]
    ax.bar(x, means, width, yerr=spread, color=GREY, label="capped, random directions",
           error_kw={"elinewidth": 1})  # fmt: skip


def legend_below(ax: "Axes", columns: int) -> None:
    """Put the legend below the axes, where it hides no data."""
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=columns, fontsize=8.5)


def from_zero_to_one(ax: "Axes", label: str = "") -> None:
    """Let the vertical axis show rates from 0 to 1."""
    ax.set_ylim(-0.03, 1.03)
    ax.set_ylabel(label)


def draw(experiments: Sequence[Experiment], folder: Path) -> dict[str, str]:
    """Write every figure of these experiments as PNG and SVG.

    Returns:
        Name of the figure -> its SVG, for a page.
    """
    pyplot = load_pyplot()
    folder.mkdir(parents=True, exist_ok=True)
    pages = {}
    with pyplot.rc_context(STYLE):
        for experiment in experiments:
            for name, figure in experiment.figures().items():
                figure.savefig(folder / f"{name}.png", dpi=160)
                text = StringIO()
                figure.savefig(text, format="svg", metadata={"Date": None})
                pyplot.close(figure)
                svg = text.getvalue()
                write_bytes(folder / f"{name}.svg", svg.encode())
                pages[name] = svg[svg.index("<svg") :]
    return pages
