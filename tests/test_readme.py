import re
from pathlib import Path

import pytest
import torch

from minaxis import Axis

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_file_that_the_readme_links_to_exists():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.slow
def test_the_readmes_python_runs(tmp_path, monkeypatch, capsys):
    g = torch.Generator().manual_seed(0)
    axis = Axis(
        vectors=torch.randn(30, 576, generator=g), norms=torch.ones(30),
        projections=torch.randn(9, 30, generator=g), meta={"model": "SmolLM2-135M-Instruct"},
    )  # fmt: skip
    axis.save(tmp_path / "out" / "smollm2" / "axis.pt")
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", README, re.S)
    assert snippets
    for snippet in snippets:
        exec(snippet, {})
    assert "tensor" in capsys.readouterr().out
