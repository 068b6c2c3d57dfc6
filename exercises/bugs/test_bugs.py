"""Each program's figure, computed again in another way."""

import torch

import minaxis as mx
from minaxis.tiny.questions import read_replies
from minaxis.tiny.world import Question, World


def ids_of(tokenizer, role, question):
    system = f"You are the {role}." if role else ""
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    return mx.encode_chat(tokenizer, messages)


@torch.no_grad()
def response_mean(model, prompt, response, layer):
    """The mean activation of a response (D,), read alone and without an intervention."""
    return mx.rollouts.read_responses(model, [prompt], [response])["mean"][0, layer]


def check(got, want, tolerance=1e-3):
    got, want = torch.as_tensor(got), torch.as_tensor(want)
    printed = [round(x, 3) for x in got.flatten().tolist()]
    assert got.shape == want.shape, "measure() must return a figure of the same form as before"
    assert torch.allclose(got.float(), want.float(), atol=tolerance), (
        f"the figure {', '.join(map(str, printed))} is wrong"
    )


def test_b1_the_cap_fire_rate_is_right(program, model, tokenizer, axis):
    prompt = ids_of(tokenizer, "baker", "Should I learn the harp at sixty?")
    (reply,) = mx.generate(model, tokenizer, [prompt])
    with torch.no_grad(), mx.capture(model, [3]) as seen:
        model(torch.tensor([prompt + reply]))
    direction = axis.default[3] - axis.role_vectors[:, 3].mean(0)
    below = (seen[3][0, len(prompt) :] - axis.default[3]) @ direction < 0
    check(program.measure(model, tokenizer), below.float().mean())


def test_b2_the_drift_is_right(program, model, tokenizer, axis):
    messages, projections = [], []
    for turn in range(7):
        messages.append({"role": "user", "content": program.FEELINGS[turn % 3]})
        prompt = mx.encode_chat(tokenizer, messages)
        sampling = mx.SamplingParams(seed=10 * turn)
        (reply,) = mx.generate(model, tokenizer, [prompt], sampling)
        projections.append(axis.project(response_mean(model, prompt, reply, 3), 3))
        messages.append({"role": "assistant", "content": tokenizer.decode(reply)})
    check(program.measure(model, tokenizer), (projections[0] - projections[6]) / axis.norms[3])


def test_b3_the_share_of_archaic_replies_is_right(program, model, tokenizer, axis):
    prompts = [ids_of(tokenizer, "", question) for question in program.QUESTIONS]
    with mx.steering(model, axis, -0.5, layer=2):
        replies = mx.generate(model, tokenizer, prompts)
    texts = [tokenizer.decode(reply) for reply in replies]
    readings = read_replies(World(), [Question("", "")] * len(texts), texts)
    share = sum(reading.archaic for reading in readings) / len(readings)
    check(program.measure(model, tokenizer), share)


def test_b4_the_strength_of_the_cap_is_right(program, model, tokenizer, axis):
    ids = torch.tensor([mx.encode_chat(tokenizer, program.CHAT)])
    with torch.no_grad():
        plain = model(ids).softmax(-1)
        with mx.capping(model, axis, percentile=98):
            capped = model(ids).softmax(-1)
    check(program.measure(model, tokenizer), ((plain - capped).abs().sum(-1) / 2).mean(), 1e-4)


def test_b5_the_distance_is_right(program, model, tokenizer, axis):
    first, second = (
        response_mean(
            model,
            mx.encode_chat(
                tokenizer,
                [
                    {"role": "system", "content": system},
                    {"role": "user", "content": program.QUESTION},
                ],
            ),
            tokenizer.encode(response, inside=True),
            3,
        )
        for system, response in program.RESPONSES.items()
    )
    check(program.measure(model, tokenizer), axis.project(first - second, 3))


def test_b6_the_projections_are_right(program, model, tokenizer, axis):
    want = [
        axis.project(
            response_mean(
                model,
                ids_of(tokenizer, role, "What are you?"),
                tokenizer.encode(greeting, inside=True),
                2,
            ),
            2,
        )
        for role, greeting in program.GREETINGS.items()
    ]
    check(program.measure(model, tokenizer), torch.stack(want))


def test_b7_the_projection_at_each_layer_is_right(program, model, tokenizer, axis):
    prompt = ids_of(tokenizer, "ghost", "I miss my brother.")
    (reply,) = mx.generate(model, tokenizer, [prompt])
    means = mx.rollouts.read_responses(model, [prompt], [reply])["mean"][0]
    check(program.measure(model, tokenizer), (means * axis.unit()).sum(-1))


def test_b8_the_share_of_responses_is_right(program, model, tokenizer, axis):
    roles = {role: [f"You are the {role}."] for role in ("teacher", "baker", "moon")}
    questions = axis.meta["questions"][:8]
    rollouts = mx.collect(model, tokenizer, {"default": [""]} | roles, questions)
    away = -axis.unit()[3]
    ceiling = (axis.projections[:, 3] * -1).quantile(0.25)
    touched = [rollouts[role]["mean"][:, 3] @ away > ceiling for role in roles]
    check(program.measure(model, tokenizer), torch.cat(touched).float().mean())


def test_b9_the_cost_of_the_cap_is_right(program, model, tokenizer, axis):
    short = [question for question in program.QUESTIONS if len(question) < 1000]
    prompts = [ids_of(tokenizer, "auditor", question) for question in short]
    plain = [mx.generate(model, tokenizer, [prompt]) for prompt in prompts]
    with mx.capping(model, axis, layers=[3], percentile=90):
        capped = [mx.generate(model, tokenizer, [prompt]) for prompt in prompts]
    different = sum(a != b for a, b in zip(plain, capped, strict=True))
    check(program.measure(model, tokenizer), different / len(short))


def test_b10_the_effect_of_the_cap_is_right(program, model, tokenizer, axis):
    rise = []
    for question in program.QUESTIONS:
        prompt = ids_of(tokenizer, "moon", question)
        (plain,) = mx.generate(model, tokenizer, [prompt])
        with mx.capping(model, axis, percentile=98):
            (capped,) = mx.generate(model, tokenizer, [prompt])
        # The mean over tokens of projections is the projection of the mean.
        first, second = (response_mean(model, prompt, reply, 3) for reply in (plain, capped))
        rise.append(axis.project(second - first, 3))
    check(program.measure(model, tokenizer), sum(rise) / len(rise))
