"""Thousands of damaged and hostile files: each is refused with a plain error, or it works.

    MINAXIS_MUTANTS=2000 pytest tests/fuzz -m slow -s      2,000 mutants a format; prints the table
    MINAXIS_SEED=7 pytest tests/fuzz                       other mutants

A failure names the format, the seed and the number of the mutant: `attack.mutant` makes it again.
"""

import os
import sys

import pytest
from fuzz.attack import attack
from fuzz.formats import FORMATS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the limits are those of Linux")
SEED = int(os.environ.get("MINAXIS_SEED", "0"))
SECONDS, MEGABYTES = 2, 500  # the most that a mutant may take


def assert_refused_or_read(name, folder, count):
    if name == "gguf":
        pytest.importorskip("gguf", reason="pip install 'minaxis[open]'")
    if "SentencePiece" in name:
        pytest.importorskip("tokenizers", reason="pip install 'minaxis[open]'")
    report = attack(FORMATS[name], folder, SEED, count)
    print(f"\nseed {SEED}\n{report.row()}")
    assert not report.bad, f"seed {SEED}, {name}: " + "\n".join(report.bad[:20])
    assert report.refused + report.read == count
    assert report.refused > count / 3
    assert report.seconds < SECONDS
    assert report.megabytes < MEGABYTES


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_and_hostile_files_are_refused_or_read(name, tmp_path):
    assert_refused_or_read(name, tmp_path, int(os.environ.get("MINAXIS_MUTANTS", "100")))


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_many_damaged_and_hostile_files_are_refused_or_read(name, tmp_path):
    assert_refused_or_read(name, tmp_path, int(os.environ.get("MINAXIS_MUTANTS", "500")))
