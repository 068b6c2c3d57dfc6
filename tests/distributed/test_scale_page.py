"""The lines of docs/scale.md, and the numbers that it prints."""

import re
import runpy
from pathlib import Path

import pytest
import torch
from torch import nn

import minaxis as mx
from minaxis.loading.exports import write_recipe

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")


class Pair(nn.Module):
    """A block that returns two tensors, whose sum is the residual stream."""

    def forward(self, h):
        return 0.25 * h, 0.75 * h


@torch.no_grad()
def test_the_lines_for_engines_lift_the_sum_of_two_tensors_to_the_floor(tmp_path):
    generator = torch.Generator().manual_seed(0)
    axis = mx.Axis(torch.randn(3, 8, generator=generator))
    axis.projections = torch.randn(50, 3, generator=generator)
    write_recipe(tmp_path / "cap.json", axis, layers=[2], percentile=75)
    (code,) = re.findall(r"```py\n(.*?)```", PAGE, re.S)
    blocks = [Pair() for _ in range(3)]
    exec(code.replace('"cap.json"', repr(str(tmp_path / "cap.json"))), {"blocks": blocks})
    h = torch.randn(2, 20, 8, generator=generator)
    lifted = sum(blocks[2](h))
    expected = mx.cap(h, axis.unit()[2], axis.thresholds(75)[2].item())
    torch.testing.assert_close(lifted, expected, atol=1e-6, rtol=0)
    assert (lifted - h).abs().max() > 0.1
    torch.testing.assert_close(sum(blocks[1](h)), h)


@pytest.mark.parametrize("arguments", [[], ["--gpus", "4", "--memory", "48"]])
def test_the_plan_of_the_page_is_what_the_planner_prints(arguments, monkeypatch, capsys):
    planner = runpy.run_path(str(ROOT / "benchmarks" / "scale_plan.py"))
    monkeypatch.setattr("sys.argv", ["scale_plan.py", *arguments])
    planner["main"]()
    printed = capsys.readouterr().out
    assert f"```text\n{printed}```" in PAGE
