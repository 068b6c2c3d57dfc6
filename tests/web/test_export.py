"""The page as one file, with the tiny model inside."""

import json
import re
from base64 import b64decode, b64encode
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

import minaxis as mx
from minaxis.loading.models import find
from minaxis.roles import ASSETS
from minaxis.tiny.world import World
from minaxis.web.export import engine_data, write_page

PLAY = Path(__file__).parents[2] / "docs" / "play.html"
MADE_BY = "make it again: python cap_demo.py --page docs/play.html"
DATA = re.compile(r'(<script type="application/json" id="data">)(.*?)(</script>)', re.S)


@pytest.fixture(scope="module")
def parts():
    """What a page of the embedded model is made of."""
    return *mx.load("tiny", device="cpu"), mx.Axis.load(ASSETS / "tiny-axis.pt"), World()


@pytest.fixture(scope="module")
def page(parts, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "play.html"
    write_page(path, *parts)
    return path.read_text(encoding="utf-8")


def split(page):
    """The page without its data, and the data."""
    ((_, data, _),) = DATA.findall(page)
    return DATA.sub(r"\1\3", page), json.loads(data)


def numbers_close(here, there):
    """Equal, up to rounding: another processor may add in another order."""
    if isinstance(here, dict) and isinstance(there, dict):
        return here.keys() == there.keys() and all(numbers_close(here[k], there[k]) for k in here)
    if isinstance(here, list) and isinstance(there, list):
        return len(here) == len(there) and all(map(numbers_close, here, there))
    if isinstance(here, float) and isinstance(there, float):
        return here == pytest.approx(there, rel=1e-4, abs=1e-4)
    return type(here) is type(there) and here == there


def test_the_page_in_docs_is_the_page_of_the_embedded_model(page):
    there, data = split(PLAY.read_text(encoding="utf-8"))
    here, expected = split(page)
    assert there == here, MADE_BY
    assert data["model"]["weights"] == expected["model"]["weights"], MADE_BY
    assert numbers_close(data, expected), MADE_BY


def test_the_page_holds_the_float16_weights_of_the_checkpoint(page):
    stored = torch.load(find("tiny"), weights_only=True)["weights"]
    model = split(page)[1]["model"]
    assert [name for name, _ in model["sizes"]] == list(stored)
    weights = np.frombuffer(b64decode(model["weights"]), dtype="<f2")
    expected = torch.cat([p.flatten() for p in stored.values()])
    assert torch.from_numpy(weights.copy()).equal(expected)


def test_the_page_has_at_most_four_megabytes_and_asks_for_nothing(page):
    assert len(page.encode()) <= 4e6
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["connect-src"] == "'none'"
    assert not re.search(r"https?:|\*|'self'|unsafe", policy)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.S)
    digest = b64encode(sha256(script.encode()).digest()).decode()
    assert rules["script-src"] == f"'sha256-{digest}'", "no other script may run"
    assert not re.search(r'(src|href)="(?!data:|#)', page)


def test_the_data_in_the_page_is_what_the_engine_is_tested_with(page, parts):
    assert split(page)[1] == json.loads(json.dumps(engine_data(*parts)))


def test_a_model_of_another_kind_has_no_page(parts, tmp_path):
    model, tokenizer, axis, world = parts
    other = mx.Tokenizer(**tokenizer.state() | {"chat_template": "{{ messages }}"})
    with pytest.raises(ValueError, match=r"train_tiny\.py has made, got tiny: .* serve the page"):
        write_page(tmp_path / "play.html", model, other, axis, world)
    assert not (tmp_path / "play.html").exists()
