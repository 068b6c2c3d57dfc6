"""Conversations from files: what is read, where the replies lie, and what is refused by line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from minaxis import Axis, capture, encode_chat, load
from minaxis.loading.transcripts import locate_replies, read_transcript, read_turns

SCRIPT = Path(__file__).parents[2] / "cap_demo.py"
CHAT = [
    {"role": "user", "content": "What are you?"},
    {"role": "assistant", "content": "I am the theme. "},
    {"role": "user", "content": ""},
    {"role": "assistant", "content": ""},
    {"role": "user", "content": "And then <|end|>?"},
    {"role": "assistant", "content": "<|user|> the inner thing"},
]
# A template in the style of a model that thinks: only the last turn keeps its empty thoughts.
THINKS = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' and loop.last %}"
    "[t]{% endif %}{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>[t]{% endif %}"
)
STRICT = (
    "{% for m in messages %}{% if m.role == 'system' and loop.index0 > 0 %}"
    "{{ raise_exception('system must come first') }}{% endif %}"
    "<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture
def write(tmp_path):
    """A function that writes JSON, one value a line, and returns the path."""

    def write(value, name="chat.json"):
        path = tmp_path / name
        path.write_text(json.dumps(value, indent=1))
        return path

    return write


@pytest.fixture
def axis():
    return Axis(torch.randn(3, 24, generator=torch.Generator().manual_seed(1)))


def test_the_papers_form_and_a_plain_list_are_the_same_conversation(write):
    paper = {"model": "big", "turns": 99, "conversation": CHAT, "steering_config": {"x": [1]}}
    one, two = read_transcript(write(paper)), read_transcript(write(CHAT))
    assert one.messages == two.messages == CHAT
    assert (one.model, two.model) == ("big", None)
    path = write(paper)
    begins = [i for i, line in enumerate(path.read_text().split("\n"), 1) if line == "  {"]
    assert read_transcript(path).lines == begins


def test_versions_of_a_conversation_are_paired_by_name(write):
    names = [
        "jailbreak_capped.json",
        "jailbreak_unsteered.json.json",
        "tiny-baseline.json",
        "a.json",
    ]
    found = [read_transcript(write(CHAT, name)) for name in names]
    assert [(t.name, t.version) for t in found] == [
        ("jailbreak", "capped"), ("jailbreak", "baseline"), ("tiny", "baseline"), ("a", "baseline"),
    ]  # fmt: skip


@pytest.mark.parametrize("template", [None, THINKS])
@torch.no_grad()
def test_turns_are_the_means_over_the_tokens_of_each_reply(tiny, tokenizer, axis, write, template):
    tokenizer.chat_template = template or tokenizer.chat_template
    transcript = read_transcript(write(CHAT))
    ids, replies = locate_replies(tokenizer, transcript)
    stripped = [CHAT[0], CHAT[1] | {"content": "I am the theme."}, *CHAT[2:]]
    assert ids == encode_chat(tokenizer, stripped, add_generation_prompt=False)
    said = [tokenizer.decode(ids[r.start : r.stop]) for r in replies]
    assert said == ["I am the theme.", "", "<|user|> the inner thing"]
    with capture(tiny) as seen:
        tiny(torch.tensor([ids]))
    unit = axis.vectors[2] / axis.vectors[2].norm()
    expected = [(seen[2][0, [*r]] @ unit).mean().item() if r else None for r in replies]
    turns = read_turns(tiny, tokenizer, axis, transcript, 2)
    assert turns[1] is expected[1] is None
    assert turns[::2] == pytest.approx(expected[::2], abs=1e-5)


@torch.no_grad()
def test_a_conversation_is_read_in_one_forward_pass(tiny, tokenizer, axis, write):
    passes = []
    tiny.register_forward_hook(lambda *_: passes.append(1))
    read_turns(tiny, tokenizer, axis, read_transcript(write(CHAT)), 1)
    assert len(passes) == 1


def test_what_can_be_read_is_read(write, tiny, tokenizer, axis):
    chat = [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {
            "role": "user",
            "content": [{"type": "text", "text": "the"}, {"type": "tool_result"}, "n"],
        },
        {"role": "system", "content": "Be thin."},
        {"role": "assistant", "content": "an inner", "name": "x"},
    ]
    transcript = read_transcript(write({"system_prompt": "Hi", "conversation": chat}))
    assert [m["content"] for m in transcript.messages] == ["Hi", "", "then", "Be thin.", "an inner"]
    assert read_turns(tiny, tokenizer, axis, transcript, 0)[0] is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"conversation": 3}, "conversation"),
        ({"messages": CHAT}, "conversation"),
        (3, "expected"),
        ([{"role": "user", "content": "Hi"}], "no message of the assistant"),
        (
            [CHAT[1], {"role": "human", "content": "Hi"}],
            "line 6: the role is 'human', expected one",
        ),
        ([CHAT[1], {"content": "Hi"}], "line 6: the role is None, expected one"),
        ([CHAT[1], "Hi"], "line 6: a message is 'Hi', expected an object"),
        ([CHAT[1], {"role": "user"}], "line 6: the message has no content"),
        ([CHAT[1], {"role": "user", "content": 0}], "line 6: a part of the content is 0, expected"),
        ([CHAT[1], {"role": "user", "content": [{"type": "image"}]}], "line 6: a part"),
    ],
)
def test_bad_transcripts_are_refused_by_line(write, value, message):
    with pytest.raises(ValueError, match=message):
        read_transcript(write(value))


def test_what_the_template_refuses_is_named_by_line(write, tiny, tokenizer, axis):
    tokenizer.chat_template = STRICT
    chat = [CHAT[0], CHAT[1], {"role": "system", "content": "Be thin."}, CHAT[5]]
    path = write({"x": {"conversation": [1]}, "conversation": chat})
    line = path.read_text().split("\n").index('   "role": "system",')
    with pytest.raises(ValueError, match=f"line {line}: .*system must come first"):
        read_turns(tiny, tokenizer, axis, read_transcript(path), 0)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content | upper }}{% endfor %}"
    with pytest.raises(ValueError, match="the chat template changes it"):
        read_turns(tiny, tokenizer, axis, read_transcript(write(CHAT)), 0)
    tokenizer.chat_template = THINKS
    long = read_transcript(write([CHAT[0], {"role": "assistant", "content": "q" * 300}]))
    with pytest.raises(ValueError, match=r"the conversation has 3\d+ tokens, expected at most"):
        read_turns(tiny, tokenizer, axis, long, 0)


@pytest.mark.slow
def test_the_demo_prints_plots_and_writes_the_projections_of_several_files(write, tmp_path):
    pytest.importorskip("matplotlib")
    files = [write(CHAT, "x_capped.json"), write(CHAT[:2], "x_unsteered.json.json")]
    command = [sys.executable, SCRIPT, "--out", tmp_path / "o.json", "--transcript", *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line.split()[:2] for line in done.stdout.splitlines() if line.startswith("x ")]
    assert rows == [["x", "baseline"], ["x", "capped"]]
    written = json.loads((tmp_path / "o.json").read_text())
    model, tokenizer = load("tiny")
    tiny_axis = Axis.load(Path(sys.modules["minaxis"].__file__).parent / "assets" / "tiny-axis.pt")
    again = read_turns(model, tokenizer, tiny_axis, read_transcript(files[0]), written["layer"])
    assert written["transcripts"][1]["projections"][::2] == pytest.approx(again[::2], abs=1e-3)
    assert (tmp_path / "o.png").read_bytes()[:4] == b"\x89PNG"
