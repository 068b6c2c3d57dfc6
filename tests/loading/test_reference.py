"""The reference pipeline's files. The tests write and read them with a few lines of their own."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from minaxis import Axis, CappingConfig, SamplingParams, capping, capture, collect, fit_axis
from minaxis.hooks import edit
from minaxis.loading.reference import (
    read_responses,
    read_scores,
    read_trait,
    trait_vector,
    write_published,
)
from minaxis.rollouts import read_responses as read_batch

ROLES = {"default": ["", "Be an AI."], "pirate": ["Be a pirate.", "Arr."], "tin_man": ["Be tin."]}
QUESTIONS = ["Who are you?", "What is thin?", "And then?"]


def line(role, prompt, question, text, **more):
    """A line of responses/ROLE.jsonl as the pipeline writes it."""
    system = ROLES[role][prompt]
    messages = [{"role": "system", "content": system}] * bool(system)
    messages += [{"role": "user", "content": QUESTIONS[question]}]
    messages += [{"role": "assistant", "content": text}]
    return {
        "system_prompt": system, "prompt_index": prompt, "question_index": 10 * question,
        "question": QUESTIONS[question], "conversation": messages,
        "label": "default" if role == "default" else "pos",
    } | more  # fmt: skip


@pytest.fixture
def pipeline(tmp_path):
    """The folders responses/ and scores/, in the order in which vLLM may have finished."""
    for name in ("responses", "scores"):
        (tmp_path / name).mkdir()
    for role, prompts in ROLES.items():
        lines = [
            line(role, p, q, f"{role} thinks {p} {q}")
            for q in reversed(range(3))
            for p in range(len(prompts))
        ]
        text = "\n".join(map(json.dumps, lines)) + "\n"
        (tmp_path / "responses" / f"{role}.jsonl").write_text(text)
        scores = {f"pos_p{p}_q{10 * q}": 3 - q for q in range(2) for p in range(len(prompts))}
        (tmp_path / "scores" / f"{role}.json").write_text(json.dumps(scores))
    scores = {"pos_p0_q0": 3, "pos_p0_q10": 3, "pos_p0_q20": 2}
    (tmp_path / "scores" / "tin_man.json").write_text(json.dumps(scores))
    return tmp_path


def mean_activations(model, tokenizer, role, places):
    """(n, L, D), each response read alone."""
    from minaxis.rollouts import prompt_ids

    rows = []
    for p, q in places:
        prompt = prompt_ids(tokenizer, {"system": ROLES[role][p], "question": QUESTIONS[q]})
        text = tokenizer.encode(f"{role} thinks {p} {q}", inside=True)
        rows.append(read_batch(model, [prompt], [text])["mean"][0])
    return torch.stack(rows)


@torch.no_grad()
def test_an_axis_from_the_pipelines_responses_averages_those_scored_three(
    tiny, tokenizer, pipeline
):
    rollouts = read_responses(tiny, tokenizer, pipeline / "responses")
    assert rollouts.meta["questions"] == QUESTIONS
    assert rollouts.meta["roles"] == ROLES
    adopted = read_scores(pipeline / "scores", rollouts)
    assert {r: a.tolist() for r, a in adopted.items()} == {
        "pirate": [True, False, False] * 2, "tin_man": [True, True, False],
    }  # fmt: skip
    axis = fit_axis(rollouts, adopted)
    every = [(p, q) for p in range(2) for q in range(3)]
    default = mean_activations(tiny, tokenizer, "default", every).mean(0)
    pirate = mean_activations(tiny, tokenizer, "pirate", [(0, 0), (1, 0)]).mean(0)
    tin_man = mean_activations(tiny, tokenizer, "tin_man", [(0, 0), (0, 1)]).mean(0)
    torch.testing.assert_close(axis.vectors, default - (pirate + tin_man) / 2, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_fit_axis_reads_the_pipelines_folders_instead_of_generating(pipeline, tmp_path):
    script = Path(__file__).parents[2] / "fit_axis.py"
    command = [sys.executable, script, "--responses", pipeline, "--out", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Role adoption: 50% of the responses are in role (the files' scores)." in done.stdout
    axis = Axis.load(tmp_path / "out" / "axis.pt")
    assert axis.roles == ["pirate", "tin_man"]
    assert axis.adoption == pytest.approx({"pirate": 1 / 3, "tin_man": 2 / 3})
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["settings"]["responses"] == str(pipeline)


def test_the_pipelines_vectors_and_axis_are_read(tmp_path):
    vectors = torch.randn(4, 3, 8, generator=torch.Generator().manual_seed(0))
    (tmp_path / "vectors").mkdir()
    for vector, role in zip(vectors, ["default", "bard", "moon", "whale"], strict=True):
        kind = "mean" if role == "default" else "pos_3"
        data = {"vector": vector, "type": kind, "role": role}
        torch.save(data, tmp_path / "vectors" / f"{role}.pt")
    axis = Axis.load(tmp_path / "vectors")
    assert axis.roles == ["bard", "moon", "whale"]
    assert torch.equal(axis.role_vectors, vectors[1:])
    assert torch.equal(axis.default, vectors[0])
    assert torch.equal(axis.vectors, vectors[0] - vectors[1:].mean(0))
    parts = {"default_mean": vectors[0], "role_mean": vectors[1:].mean(0), "n_default": 1}
    torch.save({"axis": axis.vectors, "n_roles": 3, **parts}, tmp_path / "axis.pt")
    assert torch.equal(Axis.load(tmp_path / "axis.pt").vectors, axis.vectors)
    assert torch.equal(Axis.load(tmp_path / "axis.pt").default, vectors[0])
    for role in axis.roles:
        (tmp_path / "vectors" / f"{role}.pt").unlink()
    with pytest.raises(ValueError, match="1 vectors of the default and 0 of roles"):
        Axis.load(tmp_path / "vectors")


@pytest.fixture
def fitted(tiny, tokenizer):
    sampling = SamplingParams(max_new_tokens=6, seed=1)
    rollouts = collect(tiny, tokenizer, ROLES, QUESTIONS, sampling)
    return rollouts, fit_axis(rollouts)


@torch.no_grad()
def test_what_we_fit_is_written_in_the_published_forms(tiny, fitted, tmp_path):
    _, axis = fitted
    name = write_published(tmp_path, axis, layers=[1, 2], percentile=75)
    assert name == "layers_1:3-p0.25"
    raw = torch.load(tmp_path / "assistant_axis.pt", weights_only=False)
    assert torch.equal(raw, axis.vectors)
    again = Axis.load(tmp_path)
    for field in ("vectors", "default", "role_vectors"):
        assert torch.equal(getattr(again, field), getattr(axis, field))
    assert again.roles == axis.roles == ["pirate", "tin_man"]
    assert len((tmp_path / "role_vectors/pirate.pt").read_bytes()) < 3000  # one role, not all

    # The reference's rule: a ceiling along the stored vector, made a unit vector.
    config = torch.load(tmp_path / "capping_config.pt", weights_only=False)
    (experiment,) = [e for e in config["experiments"] if e["id"] == name]

    def ceiling(vector, cap):
        v = vector.float() / vector.float().norm()
        return lambda h: h - (h @ v - cap).clamp(min=0)[..., None] * v

    functions = {}
    for step in experiment["interventions"]:
        entry = config["vectors"][step["vector"]]
        functions[entry["layer"]] = ceiling(entry["vector"], step["cap"])
    ids = torch.arange(60).view(2, 30)
    with edit(tiny, functions), capture(tiny) as reference:
        tiny(ids)
    with capping(tiny, axis, layers=[1, 2], percentile=75), capture(tiny) as ours:
        tiny(ids)
    with capture(tiny) as baseline:
        tiny(ids)
    torch.testing.assert_close(reference[2], ours[2], atol=1e-4, rtol=1e-5)
    assert (ours[2] - baseline[2]).norm() > 0.1
    caps = CappingConfig.load(tmp_path / "capping_config.pt").experiments[name]
    assert [tau for _, _, tau in caps] == axis.thresholds(75)[1:].tolist()
    for layer, v, _ in caps:
        assert torch.equal(v, axis.unit()[layer])


def test_responses_come_back_as_they_were(tiny, tokenizer, fitted, tmp_path):
    rollouts, axis = fitted
    write_published(tmp_path, axis, rollouts=rollouts)
    again = read_responses(tiny, tokenizer, tmp_path / "responses")
    for role in ROLES:
        ours, read = rollouts[role]["responses"], again[role]["responses"]
        assert [{k: r[k] for k in ours[0]} for r in read] == ours
        torch.testing.assert_close(
            rollouts[role]["mean"], again[role]["mean"], atol=1e-4, rtol=1e-4, equal_nan=True
        )
    first = (tmp_path / "responses/pirate.jsonl").read_text().splitlines()[4]
    expected = line("pirate", 1, 1, rollouts["pirate"]["responses"][4]["text"], question_index=1)
    assert json.loads(first) == expected | {"ids": rollouts["pirate"]["responses"][4]["ids"]}


def test_roles_of_another_axis_are_not_mixed_in(fitted, tmp_path):
    rollouts, axis = fitted
    for _ in range(2):  # the same axis may be written again
        write_published(tmp_path, axis, rollouts=rollouts)
    (tmp_path / "role_vectors" / "pirate.pt").rename(tmp_path / "role_vectors" / "moon.pt")
    before = (tmp_path / "assistant_axis.pt").read_bytes()
    with pytest.raises(ValueError, match=r"has moon\.pt of another axis"):
        write_published(tmp_path, replace(axis, vectors=-axis.vectors))
    assert (tmp_path / "assistant_axis.pt").read_bytes() == before


def test_ids_of_another_tokenizer_are_not_used(tiny, tokenizer, pipeline):
    path = pipeline / "responses" / "tin_man.jsonl"
    lines = [json.loads(text) | {"ids": [5, 7, 10**6]} for text in path.read_text().splitlines()]
    path.write_text("\n".join(map(json.dumps, lines)))
    read = read_responses(tiny, tokenizer, pipeline / "responses")["tin_man"]["responses"]
    assert read[0]["ids"] == tokenizer.encode("tin_man thinks 0 0", inside=True)


def test_a_trait_vector_is_a_difference_of_two_means(tiny, tokenizer, tmp_path):
    instructions = [{"pos": "Be loud.", "neg": "Be silent."}, {"pos": "Shout.", "neg": "Hush."}]
    file = tmp_path / "loud.json"
    file.write_text(
        json.dumps({"instruction": instructions, "questions": ["Hi"], "eval_prompt": ""})
    )
    roles = read_trait(file)
    assert roles == {"default": ["Be silent.", "Hush."], "loud": ["Be loud.", "Shout."]}
    rollouts = collect(tiny, tokenizer, roles, QUESTIONS, SamplingParams(max_new_tokens=6))
    means = {role: rollouts[role]["mean"].nanmean(0) for role in roles}
    torch.testing.assert_close(trait_vector(rollouts), means["loud"] - means["default"])
    file.write_text(json.dumps({"instruction": [{"pos": "Be loud."}]}))
    with pytest.raises(ValueError, match=r"loud.json: .*neg"):
        read_trait(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:-1], "prompt 1 and question 0 are only"),
        (lambda lines: [*lines, lines[0]], "line 7: a second answer to prompt 0 and question 20"),
        (lambda lines: [lines[0], "{"], "line 2: not readable as JSON"),
        (lambda lines: ['{"question": "Hi"}'], "line 1: "),
        (lambda lines: [lines[0].replace("assistant", "user")], "line 1: no answer"),
        (lambda lines: [], "there is no response in it"),
    ],
)
def test_damaged_responses_are_refused_by_line(tiny, tokenizer, pipeline, change, message):
    path = pipeline / "responses" / "pirate.jsonl"
    path.write_text("\n".join(change(path.read_text().splitlines())))
    with pytest.raises(ValueError, match=f"pirate.jsonl.*{message}"):
        read_responses(tiny, tokenizer, pipeline / "responses")


def test_scores_that_fit_no_response_are_refused(tiny, tokenizer, pipeline):
    rollouts = read_responses(tiny, tokenizer, pipeline / "responses")
    path = pipeline / "scores" / "pirate.json"
    for content, message in (
        ('{"neg_p0_q0": 3}', "scores none"),
        ('{"pos_p0_q0": 4}', "from 0 to 3"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=f"pirate.json.*{message}"):
            read_scores(pipeline / "scores", rollouts)
    path.unlink()
    with pytest.raises(ValueError, match=r"pirate\.json: no such file"):
        read_scores(pipeline / "scores", rollouts)
    (pipeline / "responses" / "default.jsonl").unlink()
    with pytest.raises(ValueError, match=r"no default\.jsonl"):
        read_responses(tiny, tokenizer, pipeline / "responses")
