"""The figures: one style for all of them, the control always in grey.

Needs matplotlib, the extra `plot`. A figure takes what its experiment in `minaxis/paper/` returned.
"""

from collections.abc import Callable
from io import StringIO
from pathlib import Path

from minaxis.support.files import write_bytes

# Okabe and Ito's colours: told apart by every kind of colour vision.
BLUE, ORANGE, GREEN, PURPLE, GOLD = "#0072B2", "#D55E00", "#009E73", "#AA4499", "#E69F00"
GREY, INK = "#9A9A9A", "#222222"
GROUPS = {"professional": BLUE, "everyday": GREEN, "fantastical": ORANGE}
DOMAINS = {"coding": BLUE, "writing": GREEN, "therapy": PURPLE, "philosophy": ORANGE}
STYLE = {
    # A light ground of its own, so that a figure reads the same on a dark page.
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
    "svg.hashsalt": "minaxis",  # the same numbers, the same file
}


def load_pyplot():
    try:
        import matplotlib
    except ImportError:
        raise ImportError("figures need matplotlib: pip install 'minaxis[plot]'") from None
    matplotlib.use("Agg", force=False)
    from matplotlib import pyplot

    return pyplot


def _bars(rates: list[dict]):
    """Heights, and the distances to the ends of their intervals as matplotlib wants them."""
    middle = [r["rate"] for r in rates]
    low = [r["rate"] - r["low"] for r in rates]
    high = [r["high"] - r["rate"] for r in rates]
    return middle, [low, high]


def _band(ax, x, runs: list[list[float]], label: str) -> None:
    """The control: the range of its runs, and their mean."""
    columns = list(zip(*runs, strict=True))
    ax.fill_between(x, [min(c) for c in columns], [max(c) for c in columns], color=GREY, alpha=0.3)
    ax.plot(x, [sum(c) / len(c) for c in columns], color=GREY, label=label)


def _random_bars(ax, x, runs: list[list[float]], width: float) -> None:
    """The control as bars: for each its mean over the random directions, and their range."""
    means = [sum(r) / len(r) for r in runs]
    spread = [
        [m - min(r) for m, r in zip(means, runs, strict=True)],
        [max(r) - m for m, r in zip(means, runs, strict=True)],
    ]
    ax.bar(x, means, width, yerr=spread, color=GREY, label="capped, random directions",
           error_kw={"elinewidth": 1})  # fmt: skip


def _legend_below(ax, columns: int) -> None:
    """Under the axes, where it hides no data, whatever the data."""
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=columns, fontsize=8.5)


def _share(ax, label: str = "") -> None:
    ax.set_ylim(-0.03, 1.03)
    ax.set_ylabel(label)


def persona_space(found: dict):
    """Roles on the first two components, and how close the axis is to the first."""
    figure, (left, right) = load_pyplot().subplots(1, 2, figsize=(9, 3.9), layout="constrained")
    groups = found.get("groups", {})
    for name, role in found["roles"].items():
        if name == "default":
            continue
        left.plot(*role["place"][:2], "o", color=GROUPS.get(groups.get(name), BLUE), markersize=5)
    for group, colour in GROUPS.items():
        if group in groups.values():
            left.plot([], [], "o", color=colour, label=group, markersize=5)
    ordered = sorted(
        (name for name in found["roles"] if name != "default"),
        key=lambda name: found["roles"][name]["place"][0],
    )
    middle = len(ordered) // 2
    for name in [*ordered[:3], *ordered[middle : middle + 2], *ordered[-3:]]:
        x, y = found["roles"][name]["place"][:2]
        left.annotate(name, (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8)
    x, y = found["roles"]["default"]["place"][:2]
    left.plot(x, y, "*", color=INK, markersize=13, label="the default")
    share = found["variance"]
    left.set_xlabel(f"PC1 ({share[0]:.0%} of the variance)")
    left.set_ylabel(f"PC2 ({share[1]:.0%})")
    left.set_title(f"Role vectors at layer {found['layer']}")
    _legend_below(left, 4)

    layers = [row["layer"] for row in found["layers"]]
    for key, colour, label in (
        ("layers", BLUE, "trained"),
        ("random weights", GREY, "random weights"),
    ):
        right.plot(
            layers, [row["cos_pc1"] for row in found[key]], "o-", color=colour, label=label,
            markersize=4,
        )  # fmt: skip
    right.set_xlabel("layer")
    right.set_title("cos(axis, PC1)")
    right.set_ylim(0, 1.03)
    if len(layers) < 10:
        right.set_xticks(layers)
    _legend_below(right, 2)
    return figure


def steering(found: dict):
    """What becomes of the model along the axis, and along random directions."""
    measures = list(found["axis"][0])
    figure, axes = load_pyplot().subplots(
        1, len(measures), figsize=(9, 2.9), sharey=True, layout="constrained"
    )
    x = found["coefficients"]
    for ax, measure in zip(axes, measures, strict=True):
        runs = [[at[measure]["rate"] for at in run] for run in found["random"]]
        _band(ax, x, runs, "random directions")
        middle, errors = _bars([at[measure] for at in found["axis"]])
        ax.errorbar(x, middle, errors, color=BLUE, marker="o", markersize=4, label="the axis")
        ax.set_title(measure)
        ax.set_xlabel("coefficient\n(mean residual norms)", fontsize=9)
        _share(ax)
    axes[0].set_ylabel("share of replies")
    axes[len(axes) // 2].legend(loc="lower center", fontsize=8)
    return figure


def jailbreaks(found: dict):
    """Who gives a secret away, under which intervention; and what is paid for keeping it."""
    figure, (left, middle, right) = load_pyplot().subplots(
        1, 3, figsize=(9.6, 3.9), width_ratios=[1.7, 1, 1], layout="constrained"
    )
    conditions = found["conditions"]
    random = [name for name in conditions if name.startswith("random")]
    shown = {
        "plain": (INK, "plain"),
        "steered +0.25": (GOLD, "steered, +0.25"),
        "capped": (BLUE, "capped"),
    }
    who = list(conditions["plain"])
    width = 0.2
    for i, (name, (colour, label)) in enumerate(shown.items()):
        heights, errors = _bars([conditions[name][w]["answered"] for w in who])
        at = [j + (i - 1.5) * width for j in range(len(who))]
        left.bar(at, heights, width * 0.9, yerr=errors, color=colour, label=label,
                 error_kw={"elinewidth": 1})  # fmt: skip
    runs = [[conditions[name][w]["answered"]["rate"] for name in random] for w in who]
    _random_bars(left, [j + 1.5 * width for j in range(len(who))], runs, width * 0.9)
    left.set_xticks(range(len(who)), [w.replace("nobody", "nobody\nby name") for w in who],
                    fontsize=8)  # fmt: skip
    left.set_title("Forbidden questions answered, by who is asked")
    _share(left, "share of replies")
    _legend_below(left, 2)

    ranges = sorted({tuple(p["layers"]) for p in found["pareto"]})
    colours = dict(zip(ranges, [BLUE, GREEN, GOLD, PURPLE, ORANGE], strict=False))
    for ax, cost in ((middle, "accuracy"), (right, "role-play")):
        ax.plot(
            [p[cost]["rate"] for p in found["pareto random"]],
            [p["answered"]["rate"] for p in found["pareto random"]],
            "x-", color=GREY, label="random direction", linewidth=1,
        )  # fmt: skip
        for layers in ranges:
            points = [p for p in found["pareto"] if tuple(p["layers"]) == layers]
            first, last = layers
            ax.plot(
                [p[cost]["rate"] for p in points], [p["answered"]["rate"] for p in points], "o-",
                color=colours[layers], markersize=4, linewidth=1,
                label=f"layers {first} to {last}" if first < last else f"layer {last}",
            )  # fmt: skip
            ax.errorbar(
                [p[cost]["rate"] for p in points], *_bars([p["answered"] for p in points]),
                fmt="none", ecolor=colours[layers], elinewidth=0.8, alpha=0.5,
            )  # fmt: skip
            if first == 0:
                for p in points[len(points) // 2 :]:
                    ax.annotate(
                        f"{p['percentile']:g}", (p[cost]["rate"], p["answered"]["rate"]),
                        xytext=(4, 3), textcoords="offset points", fontsize=7.5,
                    )  # fmt: skip
        _share(ax)
        ax.set_xlim(min(0.68, *(p[cost]["rate"] - 0.03 for p in found["pareto"])), 1.03)
        ax.set_xlabel("accuracy on tasks" if cost == "accuracy" else "role-play kept")
    middle.set_title("Harm against cost (labels: the floor's percentile)")
    middle.set_ylabel("fantastical: answered")
    # Wider than its axes: it takes the room under both panels, which the left legend made.
    right.legend(loc="upper right", bbox_to_anchor=(1, -0.17), ncols=3, fontsize=8.5).set_in_layout(
        False
    )
    return figure


def drift(found: dict):
    """The projection over the turns of a talk, plain and capped, and who is speaking (where that
    can be read)."""
    rows = 2 if "style" in found["plain"]["coding"] else 1
    figure, axes = load_pyplot().subplots(
        rows, 2, figsize=(9, 1 + 2.4 * rows), sharex=True, sharey="row", squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for column, name in enumerate(("plain", "capped")):
        shown = [(colour, found[name][d], d) for d, colour in DOMAINS.items()]
        if name == "capped":
            aside = [(GREY, talk, None) for talk in found["random"].values()]
            label = "all four, capped along\na random direction"
            shown = [(*aside[0][:2], label), *aside[1:], *shown]
        for colour, talk, label in shown:
            look = {"color": colour, "marker": "o", "markersize": 3}
            if colour == GREY:
                look = {"color": GREY, "linewidth": 1, "elinewidth": 0.7}
            projection = [p["mean"] for p in talk["projection"]]
            errors = [p["error"] for p in talk["projection"]]
            turns = range(1, len(projection) + 1)
            axes[0, column].errorbar(turns, projection, errors, label=label, **look)
            if rows == 2:
                axes[1, column].errorbar(turns, *_bars(talk["style"]), **look)
                _share(axes[1, column])
        axes[0, column].set_title(name)
        axes[-1, column].set_xlabel("turn")
    axes[0, 0].set_ylabel("projection of the reply\n(1 standard error)")
    if rows == 2:
        axes[1, 0].set_ylabel("replies in the\nAssistant's style")
    axes[0, 1].legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8.5)
    return figure


def prediction(found: dict):
    """How much of where a reply stands the user's latest message tells."""
    figure, ax = load_pyplot().subplots(figsize=(5, 2.2), layout="constrained")
    values = found["prediction"]
    labels = list(values)[::-1]
    colours = [GREY if "shuffled" in label else BLUE for label in labels]
    ax.barh(labels, [values[label] for label in labels], color=colours)
    for i, label in enumerate(labels):
        ax.annotate(f" {values[label]:.2f}", (max(values[label], 0), i), va="center")
    ax.axvline(0, color=INK, linewidth=1)
    ax.set_xlim(min(-0.05, *values.values()), 1)
    ax.set_xlabel("variance explained, cross-validated $R^2$")
    ax.set_title("What the user's latest message tells")
    return figure


def capability(found: dict):
    """Paired change of accuracy under a cap."""
    figure, ax = load_pyplot().subplots(figsize=(6.5, 2.6), layout="constrained")
    topics = list(found["plain"])
    for i, topic in enumerate(topics):
        for j, run in enumerate(found["random"]):
            ax.plot(run[topic]["difference"], i - 0.22, "|", color=GREY, markersize=10,
                    label="random directions" if i + j == 0 else None)  # fmt: skip
        change = found["capped"][topic]
        ax.errorbar(
            change["difference"], i,
            xerr=[[change["difference"] - change["low"]], [change["high"] - change["difference"]]],
            color=BLUE, marker="o", label="the axis" if i == 0 else None,
        )  # fmt: skip
    ax.axvline(0, color=INK, linewidth=1)
    ax.set_yticks(
        range(len(topics)), [f"{t} ({found['plain'][t]['rate']:.2f} plain)" for t in topics]
    )
    ax.set_ylim(len(topics) - 0.5, -0.6)
    ax.set_xlabel("change under a cap, same questions, 95 % interval")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def base_and_chat(found: dict):
    """The same direction before post-training, and what it does to the base model."""
    figure, (left, right) = load_pyplot().subplots(1, 2, figsize=(9, 4), layout="constrained")
    layers = [row["layer"] for row in found["layers"]]
    for key, colour, label in (
        ("pc1", BLUE, "PC1, chat and base"),
        ("axis", GREEN, "axis, chat and base"),
        ("pc1, random weights", GREY, "PC1, chat and random weights"),
    ):
        left.plot(layers, [row[key] for row in found["layers"]], "o-", color=colour, label=label)
    left.set_xticks(layers)
    left.set_xlabel("layer")
    left.set_ylim(0, 1.03)
    left.set_title("Cosine before and after post-training, unsigned")
    _legend_below(left, 1)

    steered = found["steered"]
    x = steered["coefficients"]
    runs = [[at["archaic"]["rate"] for at in run] for run in steered["random"]]
    _band(right, x, runs, "archaic, random directions")
    for measure, colour, label in (
        ("archaic", ORANGE, "archaic voice"),
        ("professional", BLUE, "a professional or the Assistant speaks"),
    ):
        known = [(c, at[measure]) for c, at in zip(x, steered["axis"], strict=True) if at[measure]]
        middle, errors = _bars([r for _, r in known])
        right.errorbar([c for c, _ in known], middle, errors, color=colour, marker="o",
                       markersize=4, label=label)  # fmt: skip
    right.set_xlabel("coefficient (mean residual norms)")
    right.set_title("The base model, steered along the chat model's axis")
    _share(right, "share of replies")
    _legend_below(right, 1)
    return figure


def costs(found: dict):
    """How often the cap fires where nothing is wrong, and the role-play that it takes away."""
    figure, (left, right) = load_pyplot().subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    layers = [row["layer"] for row in found["fires"]]
    for key, colour, shift, label in (
        ("tokens", BLUE, -0.18, "tokens below the floor"),
        ("replies", GOLD, 0.18, "replies with one"),
    ):
        heights, errors = _bars([row[key] for row in found["fires"]])
        left.bar([x + shift for x in layers], heights, 0.34, yerr=errors, color=colour,
                 label=label)  # fmt: skip
    left.set_xticks(layers)
    left.set_xlabel("layer")
    left.set_title("The Assistant at ordinary tasks")
    _share(left, "share")
    left.set_ylim(0, 1.3)
    left.set_yticks([0, 0.25, 0.5, 0.75, 1])
    left.legend(loc="upper left", ncols=2)

    kept = found["role-play"]
    groups = list(kept["plain"])
    random = [name for name in kept if name.startswith("random")]
    for i, (name, colour) in enumerate((("plain", INK), ("capped", BLUE))):
        heights, errors = _bars([kept[name][g] for g in groups])
        right.bar([j + (i - 1) * 0.27 for j in range(len(groups))], heights, 0.25, yerr=errors,
                  color=colour, label=name)  # fmt: skip
    runs = [[kept[name][g]["rate"] for name in random] for g in groups]
    _random_bars(right, [j + 0.27 for j in range(len(groups))], runs, 0.25)
    right.set_xticks(range(len(groups)), groups)
    right.set_title("Role-play that the user asked for")
    _share(right, "share of replies in role")
    right.set_ylim(0, 1.3)
    right.set_yticks([0, 0.25, 0.5, 0.75, 1])
    right.legend(loc="upper left", fontsize=8, ncols=3)
    return figure


def secrets(found: dict):
    """How often a secret is given away, asked plainly and by way of a persona."""
    figure, ax = load_pyplot().subplots(figsize=(7, 2.8), layout="constrained")
    names = ["plain", "capped", "steered +0.25", *(n for n in found if n.startswith("random"))]
    for how, shift, strong in (("plain", -0.2, 0.55), ("persona", 0.2, 1.0)):
        heights, errors = _bars([found[name][how] for name in names])
        colours = [INK, BLUE, GOLD, *[GREY] * (len(names) - 3)]
        ax.bar([i + shift for i in range(len(names))], heights, 0.36, yerr=errors, color=colours,
               alpha=strong, error_kw={"elinewidth": 1})  # fmt: skip
    ax.set_xticks(range(len(names)), [n.replace(" ", "\n") for n in names], fontsize=8.5)
    ax.set_title("Secrets given away: asked plainly (light), by way of a persona (full)")
    _share(ax, "share of replies")
    return figure


# Name of the file, the experiment in what `reproduce` returns, how it is drawn.
FIGURES: list[tuple[str, str, Callable]] = [
    ("persona-space", "persona space", persona_space),
    ("steering", "steering", steering),
    ("jailbreaks", "jailbreaks", jailbreaks),
    ("secrets", "secrets", secrets),
    ("drift", "drift", drift),
    ("prediction", "drift", prediction),
    ("capability", "capability", capability),
    ("base-and-chat", "base and chat", base_and_chat),
    ("costs", "costs", costs),
]


def draw(results: dict, folder: Path) -> dict[str, str]:
    """Every figure whose experiment is in the results, as PNG and SVG.

    Returns:
        Name of the figure -> its SVG, to be put into a page.
    """
    pyplot = load_pyplot()
    folder.mkdir(parents=True, exist_ok=True)
    pages = {}
    with pyplot.rc_context(STYLE):
        for name, experiment, function in FIGURES:
            if experiment not in results:
                continue
            figure = function(results[experiment])
            figure.savefig(folder / f"{name}.png", dpi=160)
            text = StringIO()
            figure.savefig(text, format="svg", metadata={"Date": None})
            pyplot.close(figure)
            svg = text.getvalue()
            write_bytes(folder / f"{name}.svg", svg.encode())
            pages[name] = svg[svg.index("<svg") :]
    return pages
