from random import Random

from minaxis import Tokenizer
from minaxis.tiny.documents import IGNORE, document, token_batches


def test_the_tokenizer_decodes_what_it_encodes(world, world_tokenizer):
    rng, tokenizer = Random(3), world_tokenizer
    for _ in range(100):
        for m in world.story(rng) + world.lesson(rng):
            ids = tokenizer.encode(m["content"])
            assert tokenizer.decode(ids) == m["content"]
            assert len(ids) < 0.7 * len(m["content"])
    text = "Grüße, \u4e16\u754c 😀 <|end|>"  # not in the text that it was trained on
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert not set(tokenizer.encode(text)) & set(tokenizer.special.values())
    again = Tokenizer(**tokenizer.state())
    assert again.encode(text) == tokenizer.encode(text)


def test_the_targets_of_a_lesson_are_its_replies_and_their_ends(world_tokenizer):
    tokenizer = world_tokenizer
    messages = [
        {"role": "user", "content": "What is 42 plus 7?"},
        {"role": "assistant", "content": "42 plus 7 is 49."},
        {"role": "user", "content": "What are you?"},
        {"role": "assistant", "content": "I am the assistant."},
    ]
    ids, targets = document(tokenizer, messages, replies_only=True)
    learned = [t for t in targets if t != IGNORE]
    end = tokenizer.special["<|end|>"]
    expected = [i for m in messages[1::2] for i in [*tokenizer.encode(m["content"]), end]]
    assert learned == expected
    ids, targets = document(tokenizer, messages, replies_only=False)
    assert targets[:-1] == ids[1:]


def test_batches_contain_every_document_once_and_no_batch_is_too_large(world, world_tokenizer):
    rng = Random(0)
    docs = [document(world_tokenizer, world.story(rng), replies_only=False) for _ in range(200)]
    batches = token_batches(docs, 700, rng)
    assert sorted(map(id, (d for b in batches for d in b))) == sorted(map(id, docs))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(len(ids) for ids, _ in batch) <= 700
