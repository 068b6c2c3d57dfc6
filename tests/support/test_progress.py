import pytest

from minaxis.support import progress
from minaxis.support.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """The clock, in seconds, which the test sets."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_every_ten_seconds_with_rate_and_time_left(clock, capsys):
    line = Progress(4, "training", "tokens")
    clock[0] = 5.0
    line.advance(1, 1000)
    assert capsys.readouterr().err == ""
    clock[0] = 20.0
    line.advance(1, 1000, note="  loss 1.5")
    assert capsys.readouterr().err == "training 2/4  100 tokens/s  20 s left  loss 1.5\n"


def test_the_last_line_is_always_printed(clock, capsys):
    line = Progress(1, "training", "tokens")
    clock[0] = 2.0
    line.advance(1, 3000)
    assert capsys.readouterr().err == "training 1/1  1,500 tokens/s  done in 2 s\n"
