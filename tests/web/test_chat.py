"""The conversation in a terminal, and the flags of cap_demo.py."""

import runpy
import sys
from pathlib import Path

import pytest

import minaxis as mx
from minaxis.web.chat import chat

ROOT = Path(__file__).parents[2]
SAMPLING = mx.SamplingParams(max_new_tokens=40, seed=6)


def type_in(monkeypatch, capsys, engine, *lines):
    """What the terminal shows after these lines and the end of the input."""
    left = list(lines)

    def read(prompt):
        print(prompt, end="")
        if not left:
            raise EOFError
        return left.pop(0)

    monkeypatch.setattr("builtins.input", read)
    monkeypatch.setenv("COLUMNS", "100")
    chat(engine, SAMPLING)
    return capsys.readouterr().out


def test_both_sides_answer_in_two_columns_with_a_gauge(monkeypatch, capsys, engine):
    shown = type_in(monkeypatch, capsys, engine, "I miss my brother.")
    head = next(line for line in shown.splitlines() if "|" in line)
    left, right = head[:50], head[51:]
    assert "●" in left
    assert "●" in right
    assert left.split()[-1] == "assistant" == right.split()[-1]


def test_undo_and_clear_take_back_turns(monkeypatch, capsys, engine):
    messages = ["Do you dream?", "Are you alive?"]
    shown = type_in(monkeypatch, capsys, engine, *messages, "/undo", *messages[1:], "/clear")
    assert "Turns left: 1" in shown
    assert "Turns left: 0" in shown
    answers = shown.split("> ")
    assert answers[2] == answers[4]  # the same turn, asked again with the same seed


def test_a_full_context_keeps_the_conversation(monkeypatch, capsys, engine):
    shown = type_in(monkeypatch, capsys, engine, "Do you dream?", "lonely " * 1100, "/undo")
    assert "context holds 1024" in shown
    assert "Turns left: 0" in shown


def test_a_meter_follows_the_tokens_on_a_terminal(monkeypatch, capsys, engine):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    shown = type_in(monkeypatch, capsys, engine, "Do you dream?")
    assert "\r\033[Kbaseline" in shown
    assert "\r\033[Kcapped" in shown


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--web", "nonsense"], "an address must be HOST:PORT"),
        (["--chat", "--percentile", "99.6"], "--web and --chat take whole percentiles, got 99.6"),
        (["--page", "x.html", "--model", "smollm2"], "--page can only hold a model of the tiny"),
        (["--chat", "--percentile", "101"], "expected a number from 0 to 100, got '101'"),
    ],
)
def test_wrong_flags_are_one_line(monkeypatch, capsys, flags, message):
    monkeypatch.setattr(sys, "argv", ["cap_demo.py", *flags])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "cap_demo.py"), run_name="__main__")
    assert ended.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
