import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_file_that_the_readme_links_to_exists():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_readmes_python_runs(tmp_path, monkeypatch, capsys):
    """Blocks marked python; those marked py need a model that is not here."""
    (tmp_path / "out" / "tiny").mkdir(parents=True)
    shutil.copy(ROOT / "minaxis/assets/tiny-axis.pt", tmp_path / "out" / "tiny" / "axis.pt")
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", README, re.S)
    assert snippets
    for snippet in snippets:
        exec(snippet, {})
    assert "tensor" in capsys.readouterr().out
