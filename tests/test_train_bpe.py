from minaxis.loading.byte_level import PATTERNS
from minaxis.tokenizer import train_bpe


def test_bpe_merges_the_most_frequent_pair_first():
    ranks = train_bpe(["ab ab ab cd cd ab"], 259, pattern=PATTERNS["gpt-2"])
    assert list(ranks)[256:] == [b"ab", b" ab", b" c"]  # " c" before "cd": equally common
    assert list(ranks.values()) == list(range(259))
    shuffled = train_bpe(["ab ab", "cd cd", " ab ab"], 258)
    assert train_bpe(["cd ab", "ab ab ab", " cd"], 258) == shuffled


def test_bpe_stops_when_no_pair_is_left():
    assert list(train_bpe(["aaa"], 1000))[256:] == [b"aa", b"aaa"]
