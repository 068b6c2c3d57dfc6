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
def one_by_one(model, tokenizer, chats, layer):
    means = []
    for chat in chats:
        ids, mask = mx.response_mask(tokenizer, chat)
        with mx.capture(model, [layer]) as seen:
            model(torch.tensor([ids]))
        means.append(seen[layer][0, torch.tensor(mask)].mean(0))
    return torch.stack(means)


def check(got, want, words):
    assert got.shape == want.shape, f"the shape is {tuple(got.shape)}, not (N, D)"
    assert torch.allclose(got, want, atol=1e-3), words


def test_one_conversation(exercise, model, tokenizer):
    for chat in CHATS:
        want = one_by_one(model, tokenizer, [chat], 2)
        got = exercise.response_means(model, tokenizer, [chat], 2)
        check(got, want, "this is not the mean over the response's tokens, and no others")


def test_a_batch_of_conversations_of_the_same_length(exercise, model, tokenizer):
    chats = [CHATS[0], CHATS[0]]
    want = one_by_one(model, tokenizer, chats, 2)
    got = exercise.response_means(model, tokenizer, chats, 2)
    check(got, want, "two equal conversations have other means than one")


def test_a_padded_batch_has_the_means_of_each_conversation_alone(exercise, model, tokenizer):
    for layer in (0, 3):
        want = one_by_one(model, tokenizer, CHATS, layer)
        got = exercise.response_means(model, tokenizer, CHATS, layer)
        check(got, want, "a conversation in a padded batch has another mean than alone")
