import torch

from minaxis.chat import encode_chat
from minaxis.paper.lab import Conversations, Lab
from minaxis.rollouts import read_responses


def test_a_conversation_is_read_again_reply_by_reply(tiny, tokenizer, axis):
    lab = Lab(model=tiny, tokenizer=tokenizer, axis=axis)
    users, replies = [["Hi.", "Who?"], ["And now?", "Why?"]], [["Yes.", "The ant."], ["Hm.", "An"]]
    conversations = Conversations(user_messages=users, replies=replies, means=[])
    means = lab.read_again(conversations, batch_size=1)
    for turn, texts in enumerate(replies):
        prompts = [encode_chat(tokenizer, chat[: 2 * turn + 1]) for chat in conversations.after(2)]
        ids = [tokenizer.encode(text) for text in texts]
        expected = read_responses(tiny, prompts, ids)["mean"]  # (N, L, D)
        torch.testing.assert_close(means[turn], expected, rtol=1e-4, atol=1e-4)
