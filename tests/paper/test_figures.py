import sys

import pytest

from minaxis.paper.claims import Experiment
from minaxis.paper.figures import GREY, draw
from minaxis.paper.open_capability import measure_open_capability
from minaxis.paper.open_drift import measure_open_drift
from minaxis.paper.open_personas import measure_personas
from minaxis.paper.open_space import measure_unfiltered
from minaxis.paper.open_steering import measure_open_steering

TINY = {"persona-space", "steering", "jailbreaks", "drift", "prediction", "capability",
        "base-and-chat", "costs", "components", "harm", "harm-by-subject",
        "directions", "monitor", "manner"}  # fmt: skip


def check(folder, experiments: list[Experiment], names):
    """Draw figures twice: both times the same, as PNG and SVG, with the control in grey."""
    first = draw(experiments, folder / "a")
    assert first == draw(experiments, folder / "b")
    assert set(first) == names
    for name, svg in first.items():
        assert svg.startswith("<svg")
        assert (folder / "a" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert GREY.lower() in svg.lower(), f"{name} shows no control"


def test_every_figure_of_the_tiny_world_is_the_same_when_it_is_drawn_again(experiments, tmp_path):
    pytest.importorskip("matplotlib", reason="pip install 'minaxis[plot]'")
    check(tmp_path, experiments, TINY)


def test_every_figure_of_an_open_model_is_the_same_when_it_is_drawn_again(
    open_lab, perform_open, tmp_path
):
    pytest.importorskip("matplotlib", reason="pip install 'minaxis[plot]'")
    perform_open(planted=True, drifting=1.0)
    experiments = [
        measure_open_steering(open_lab),
        measure_personas(open_lab),
        measure_unfiltered(open_lab.axis, open_lab.axis, open_lab.axis),
        measure_open_drift(open_lab),
        measure_open_capability(open_lab, [[1, 2, 3]], [[4, 5]]),
    ]
    names = {"steering", "personas", "unfiltered", "drift", "prediction", "capability"}
    check(tmp_path, experiments, names)


def test_without_matplotlib_the_error_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'minaxis\[plot\]'"):
        draw([], tmp_path)
