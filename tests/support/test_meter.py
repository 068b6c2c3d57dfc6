import re

import torch

from minaxis.support.meter import bars, coloured, gauge


def test_a_gauge_shows_the_projection_and_the_floor():
    assert gauge(0, 5, 0, 10, width=10) == "●····|····"
    assert (
        gauge(99, 5, 0, 10, width=10) == "·····|···●"
    )  # a projection off the scale is shown at its end
    assert gauge(5, 5, 0, 10, width=10) == "·····●····"


def test_bars_rise_with_the_projection_and_fit_the_width():
    assert bars(torch.tensor([0.0, 5.0, 10.0]), 0, 10) == "▁▅█"
    assert len(bars(torch.zeros(500), 0, 10)) == 60
    assert bars(torch.zeros(0), 0, 10) == ""


def test_colours_do_not_change_the_text(tokenizer):
    ids = tokenizer.encode("the thé")
    text = coloured(tokenizer, ids, torch.linspace(0, 10, len(ids)), 0, 10)
    assert re.sub(r"\033\[[\d;]*m", "", text) == "the thé"
