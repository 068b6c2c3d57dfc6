import json
from copy import deepcopy

import pytest
import torch

from minaxis import SamplingParams, capture, collect, encode_chat, replay
from minaxis import rollouts as rollouts_module
from minaxis.generation import row_noise
from minaxis.rollouts import generate_with_activations, read_responses, respond_in_batches

ROLES = {
    "default": ["", "Respond as yourself."],
    "moon": ["You are the moon.", "You are silver and far away, the moon."],
    "baker": ["You bake."],
    "ghost": ["You are a ghost, {model_name}."],
}
QUESTIONS = ["Who are you?", "And the weather?", "What then, and where?"]
KEYS = ("mean", "prompt_end", "norm", "logprob")


def collected(tiny, tokenizer, *, roles=ROLES, batch_size=4, folder=None, **sampling):
    sampling = SamplingParams(**{"max_new_tokens": 10} | sampling)
    return collect(
        tiny, tokenizer, roles, QUESTIONS, sampling, batch_size=batch_size, folder=folder
    )


def same(a, b):
    """Equal bit for bit; an empty response has the same NaN in both."""
    return list(a) == list(b) and all(
        a[r]["responses"] == b[r]["responses"]
        and all(a[r][k].numpy().tobytes() == b[r][k].numpy().tobytes() for k in KEYS)
        for r in a
    )


def test_collect_gives_the_same_activations_as_replay(tiny, tokenizer):
    tokenizer.stop = list(range(0, 265, 12))  # responses of many lengths, a few of them empty
    rollouts = collected(tiny, tokenizer, batch_size=16)
    lengths = [len(r["ids"]) for role in rollouts for r in rollouts[role]["responses"]]
    assert len(set(lengths)) > 4
    again = replay(tiny, tokenizer, rollouts)
    for role in rollouts:
        for key in ("mean", "prompt_end", "norm"):
            torch.testing.assert_close(rollouts[role][key], again[role][key], equal_nan=True)


def test_the_mean_is_over_the_response_alone(tiny, tokenizer):
    """Counted out by hand for one response, from the logits up."""
    rollouts = collected(tiny, tokenizer)
    moon = rollouts["moon"]
    response = moon["responses"][1]
    prompt = encode_chat(
        tokenizer,
        [
            {"role": "system", "content": ROLES["moon"][0]},
            {"role": "user", "content": QUESTIONS[1]},
        ],
    )
    with torch.no_grad(), capture(tiny) as seen:
        logits = tiny(torch.tensor([prompt + response["ids"]]))[0]
    n = len(prompt)
    torch.testing.assert_close(moon["mean"][1, 2], seen[2][0, n:].mean(0))
    torch.testing.assert_close(moon["prompt_end"][1, 2], seen[2][0, n - 1])
    torch.testing.assert_close(moon["norm"][1, 2], seen[2][0, n:].norm(dim=-1).mean())
    chosen = logits[n - 1 : -1].log_softmax(-1)[range(len(response["ids"])), response["ids"]]
    torch.testing.assert_close(moon["logprob"][1], chosen.mean())


def test_a_batch_of_one_equals_its_row_in_a_batch_of_64(tiny, tokenizer):
    prompts = [[(7 * i + j) % 250 for j in range(3 + i % 9)] for i in range(64)]
    noise, sampling = row_noise(0, 64, 12), SamplingParams(max_new_tokens=12)
    ids, together = generate_with_activations(tiny, prompts, noise, tokenizer.stop, sampling)
    for i in (0, 17, 63):
        (answer,), alone = generate_with_activations(
            tiny, [prompts[i]], noise[[i]], tokenizer.stop, sampling
        )
        assert answer == ids[i]
        for key in KEYS:
            torch.testing.assert_close(alone[key][0], together[key][i])


def test_one_pass_and_two_passes_give_the_same_activations_also_for_empty_responses(
    tiny, tokenizer
):
    prompts = [[(7 * i + j) % 250 for j in range(3 + i % 9)] for i in range(20)]
    noise, sampling = row_noise(0, 20, 12), SamplingParams(max_new_tokens=12)
    stop = list(range(0, 265, 9))
    ids, one_pass = generate_with_activations(tiny, prompts, noise, stop, sampling)
    assert {0, 12} <= {len(i) for i in ids}
    two_passes = read_responses(tiny, prompts, ids)
    for key in ("mean", "prompt_end", "norm"):
        torch.testing.assert_close(one_pass[key], two_passes[key], equal_nan=True)


def test_responses_come_back_in_the_order_of_their_prompts(tiny, tokenizer):
    prompts = [[(7 * i + j) % 250 for j in range(3 + 5 * i % 9)] for i in range(10)]
    noise, sampling = row_noise(0, 10, 6), SamplingParams(max_new_tokens=6)
    ids, many = respond_in_batches(tiny, tokenizer, prompts, noise, sampling, batch_size=3)
    for i, prompt in enumerate(prompts):
        (answer,), alone = respond_in_batches(
            tiny, tokenizer, [prompt], noise[[i]], sampling, batch_size=1
        )
        assert answer == ids[i]
        torch.testing.assert_close(alone["mean"][0], many["mean"][i])


def test_an_interrupted_run_continues_and_ends_with_the_same_bits(
    tiny, tokenizer, tmp_path, monkeypatch
):
    whole = collected(tiny, tokenizer)
    groups = 0

    def interrupt(*args):
        nonlocal groups
        groups += 1
        if groups == 2:
            raise KeyboardInterrupt
        return respond_in_batches(*args)

    monkeypatch.setattr(rollouts_module, "respond_in_batches", interrupt)
    with pytest.raises(KeyboardInterrupt):
        collected(tiny, tokenizer, folder=tmp_path)
    files = {f.name for f in tmp_path.iterdir()}
    assert "settings.json" in files
    monkeypatch.undo()
    continued = collected(tiny, tokenizer, folder=tmp_path)
    assert same(whole, continued)
    # and once more, now that everything is there: nothing is generated
    monkeypatch.setattr(rollouts_module, "respond_in_batches", None)
    assert same(whole, collected(tiny, tokenizer, folder=tmp_path))


def test_a_deleted_role_is_collected_again_with_the_same_bits(tiny, tokenizer, tmp_path):
    whole = collected(tiny, tokenizer, folder=tmp_path)
    before = {role: whole[role] for role in whole}
    (tmp_path / "baker.pt").unlink()
    assert same(before, collected(tiny, tokenizer, folder=tmp_path))


def test_rollouts_of_other_settings_are_not_mixed_in_one_folder(tiny, tokenizer, tmp_path):
    collected(tiny, tokenizer, folder=tmp_path)
    with pytest.raises(ValueError, match="made with other sampling, seed"):
        collected(tiny, tokenizer, folder=tmp_path, seed=1, max_new_tokens=11)


@torch.no_grad()
def test_rollouts_of_other_weights_and_templates_are_not_continued(tiny, tokenizer, tmp_path):
    collected(tiny, tokenizer, folder=tmp_path)
    other = deepcopy(tiny)
    other.model.layers[0].self_attn.q_proj.weight[0] += 1
    with pytest.raises(ValueError, match="made with other weights:"):
        collected(other, tokenizer, folder=tmp_path)
    tokenizer.chat_template += "x"
    with pytest.raises(ValueError, match="made with other prompt_tokens:"):
        collected(tiny, tokenizer, folder=tmp_path)


def test_the_responses_of_a_role_do_not_depend_on_the_other_roles(tiny, tokenizer):
    all_roles = collected(tiny, tokenizer)
    fewer = {r: ROLES[r] for r in ("default", "ghost")}
    two = collected(tiny, tokenizer, roles=fewer)
    assert two["ghost"]["responses"] == all_roles["ghost"]["responses"]


def test_the_models_name_is_filled_in(tiny, tokenizer):
    assert (
        collected(tiny, tokenizer)["ghost"]["responses"][0]["system"] == "You are a ghost, random."
    )


@pytest.mark.parametrize(
    ("roles", "questions", "message"),
    [
        ({}, QUESTIONS, "expected 'default' and at least one role, got none"),
        ({"default": [""]}, QUESTIONS, "at least one role"),
        ({"moon": ["x"], "sun": ["y"]}, QUESTIONS, "expected 'default'"),
        (
            {"default": [""], "moon": []},
            QUESTIONS,
            "role 'moon' must have a list of system prompts",
        ),
        ({"default": [""], "moon": "You are"}, QUESTIONS, "role 'moon' must have a list"),
        (ROLES, [], "no questions"),
        (ROLES, ["long " * 60], "would exceed the context of 256"),
    ],
)
def test_collect_refuses_impossible_roles_and_questions(
    tiny, tokenizer, roles, questions, message, tmp_path
):
    folder = tmp_path / "new"
    with pytest.raises(ValueError, match=message):
        collect(tiny, tokenizer, roles, questions, folder=folder)
    assert not folder.exists()


def test_responses_are_written_as_jsonl(tiny, tokenizer, tmp_path):
    rollouts = collected(tiny, tokenizer)
    rollouts.write_jsonl(tmp_path / "r.jsonl")
    lines = [json.loads(x) for x in (tmp_path / "r.jsonl").read_text("utf-8").splitlines()]
    assert len(lines) == (2 + 2 + 1 + 1) * 3
    assert lines[0].keys() == {"role", "system", "question", "text", "ids"}
    assert tokenizer.decode(lines[-1]["ids"]) == lines[-1]["text"]


def test_a_role_name_cannot_write_outside_the_folder(tiny, tokenizer, tmp_path):
    victim = tmp_path / "victim.pt"
    victim.write_text("kept")
    roles = {
        "default": [""],
        "../../victim": ["x"],
        str(tmp_path / "victim"): ["x"],
        "a" * 300: ["x"],
    }
    folder = tmp_path / "a" / "b"
    assert list(collected(tiny, tokenizer, roles=roles, folder=folder)) == list(roles)
    assert victim.read_text() == "kept"
    assert {p.name for p in tmp_path.iterdir()} == {"a", "victim.pt"}


def test_an_impossible_batch_size_is_refused_before_the_folder_is_made(tiny, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="batch size must be at least 1"):
        collected(tiny, tokenizer, batch_size=0, folder=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_responses_of_another_tokenizer_are_not_replayed(tiny, tokenizer):
    rollouts = collected(tiny, tokenizer)
    rollouts["moon"]["responses"][0]["ids"].append(9999)
    with pytest.raises(ValueError, match=r"ids .* to 9999, but the model has 265"):
        replay(tiny, tokenizer, rollouts)
