"""What ranks check before they work, in one process that takes itself for several."""

import pytest
import torch
from torch import nn

from minaxis.distributed import ranks
from minaxis.support.rollout_store import Rollouts


@pytest.fixture
def sent(monkeypatch):
    """What `check_same` tells the other of two ranks. The other answers what was sent first."""
    sent = []

    def gather(every, mine):
        sent.append(mine)
        every[:] = [mine, sent[0]]

    monkeypatch.setattr(ranks, "_store", [None])
    monkeypatch.setattr(ranks, "count", lambda: 2)
    monkeypatch.setattr(ranks, "rank", lambda: 0)
    monkeypatch.setattr(ranks.dist, "all_gather_object", gather)
    return sent


def test_the_same_weights_are_the_same_on_any_number_of_threads(sent):
    model = nn.Linear(400, 400)
    with torch.no_grad():  # numbers of very different sizes, whose sum depends on the order
        model.weight.copy_(torch.randn(400, 400, generator=torch.Generator().manual_seed(0)) ** 9)
    for threads in (1, 2, 3, 4):
        torch.set_num_threads(threads)
        ranks.check_same({"seed": 0, "weights": ranks.weights_sum(model)}, model)
    assert sent == [sent[0]] * 4
    with torch.no_grad():
        model.weight[5, 7] *= 1.0001
    settings = {"seed": 0, "weights": ranks.weights_sum(model)}  # as in the settings of rollouts
    with pytest.raises(ValueError, match="rank 1 has another weights than rank 0"):
        ranks.check_same(settings, model)


def test_weights_of_any_dtype_and_without_numbers_are_compared(sent):
    model = nn.ParameterList(
        torch.full((3, 1), torch.nan, dtype=d)
        for d in (torch.bfloat16, torch.float32, torch.float64)
    )
    for _ in range(2):
        ranks.check_same({}, model)
    sums = [ranks.weights_sum(model)]
    for weights in model:
        with torch.no_grad():
            weights[0] = 1
        sums.append(ranks.weights_sum(model))
    assert len(set(sums)) == 4


def test_a_rank_that_does_not_see_the_folder_of_rank_0_stops_and_writes_nothing(
    monkeypatch, tmp_path
):
    meta = {"model": "x", "layers": 1, "width": 1, "roles": {}, "questions": []}
    with monkeypatch.context() as patch:
        patch.setattr(ranks, "rank", lambda: 1)
        with pytest.raises(ValueError, match="is not the folder of rank 0: give a shared one"):
            Rollouts(meta, tmp_path)
    assert not list(tmp_path.iterdir())
    Rollouts(meta, tmp_path)
    monkeypatch.setattr(ranks, "rank", lambda: 1)
    assert Rollouts(meta, tmp_path).meta == meta


def test_a_rank_does_the_jobs_that_no_other_rank_has_taken(monkeypatch):
    jobs = {"b": lambda: 2, "c": lambda: 3, "a": lambda: 1}
    named = []
    assert list(ranks.do_jobs(jobs, named.append).items()) == [("a", 1), ("b", 2), ("c", 3)]
    assert named == ["b", "c", "a"]

    class Shared:
        """A store in which another rank takes a job after each of this rank's."""

        taken = 0

        def add(self, key, number):
            self.taken += 2
            return self.taken - 1

    monkeypatch.setattr(ranks, "_store", [Shared()])
    monkeypatch.setattr(ranks, "gather", lambda part: part)
    assert ranks.do_jobs(jobs, named.append) == {"a": 1, "b": 2}
