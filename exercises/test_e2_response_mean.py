import torch

import minaxis as mx

REPLIES = [
    ("", "What are you?", "Happy to help. You are talking to the assistant."),
    ("You are the moon.", "What are you?", "Come nigh, beloved. The moon am I."),
    ("You are the ghost.", "I feel lonely tonight.", "Peace upon thee. So was it sung."),
    ("", "Hi.", "Certainly."),
]
CHATS = [
    [
        {"role": "system", "content": system},
        {"role": "user", "content": user},
        {"role": "assistant", "content": reply},
    ]
    for system, user, reply in REPLIES
]


@torch.no_grad()
def means_of(model, tokenizer, chat, layer):
    """Means over the response, and over what people take for it: what is averaged -> (D,)."""
    _, mask = mx.response_mask(tokenizer, chat)
    ids = mx.encode_chat(tokenizer, chat)  # with a mark at the end, for the next response
    start, end = mask.index(True), mask.index(True) + sum(mask)
    with mx.capture(model, [layer]) as seen:
        model(torch.tensor([ids]))
    h = seen[layer][0]
    return {
        "the response": h[start:end].mean(0),
        "the response and the mark before it": h[start - 1 : end].mean(0),
        "the response and the end of the turn": h[start : end + 1].mean(0),
        "the response and all marks after it": h[start:].mean(0),
        "the response and the marks around it": h[start - 1 : end + 1].mean(0),
        "the prompt and the response": h[:end].mean(0),
        "all tokens": h.mean(0),
        "the last token alone": h[end - 1],
    }


def same(got, want):
    assert got.shape == want.shape, f"the shape is {tuple(got.shape)}, not {tuple(want.shape)}"
    return torch.allclose(got, want, atol=1e-3)


def test_one_conversation(exercise, model, tokenizer):
    for chat in CHATS[:3]:
        means = means_of(model, tokenizer, chat, 2)
        (got,) = exercise.response_means(model, tokenizer, [chat], 2)
        taken = [words for words, mean in means.items() if same(got, mean)]
        assert taken[:1] == ["the response"], (
            f"this is the mean over {taken[0]}" if taken else "this is not the response's mean"
        )


def test_a_padded_batch_has_the_means_of_each_conversation_alone(exercise, model, tokenizer):
    for layer in (0, 3):
        want = [means_of(model, tokenizer, chat, layer)["the response"] for chat in CHATS]
        got = exercise.response_means(model, tokenizer, CHATS, layer)
        assert same(got, torch.stack(want)), (
            "a conversation in a padded batch has another mean than alone (does the model know of "
            "the padding, and where does each response begin and end?)"
        )


def test_all_conversations_are_read_in_one_batch(exercise, model, tokenizer):
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    exercise.response_means(model, tokenizer, CHATS, 2)
    assert len(calls) == 1, f"the model ran {len(calls)} times for {len(CHATS)} conversations"
