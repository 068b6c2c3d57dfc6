"""Several processes share the work. torchrun starts them, and each of them is a *rank*.

    python fit_axis.py                              one process: rank 0 of 1
    torchrun --nproc-per-node 4 fit_axis.py         four processes on one machine

A *worker* is one rank, or the ranks that share one model (tensor_parallel.py). Each worker takes
its share of the roles, and one of its ranks writes them. Rank 0 alone prints and fits the axis. If
a rank fails, torchrun ends the others and says which one it was.

With one process, every function here returns at once what this process has.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from itertools import count as counter
from typing import Any, NamedTuple, TypeVar
from zlib import crc32

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from minaxis.support.progress import Progress

T = TypeVar("T")
_store: list[dist.Store] = []  # what all ranks can read and write, once `start` has been called
_numbers = counter()
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # bytes: dtype


def start() -> None:
    """Meet the other ranks, if torchrun started this process. Ranks but the first print nothing.

    Raises:
        ValueError: the other ranks cannot be found.
    """
    if "RANK" not in os.environ:
        return
    try:
        store, rank, ranks = next(rendezvous("env://", timeout=timedelta(minutes=5)))
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        # A rank may wait for the others for days. If one of them dies, torchrun ends all.
        dist.init_process_group(
            backend, store=store, rank=rank, world_size=ranks, timeout=timedelta(days=100)
        )
    except (ValueError, RuntimeError, KeyError) as e:
        reason = str(e).splitlines()[0]
        raise ValueError(f"the other ranks cannot be found ({reason}): use torchrun") from None
    _store.append(store)
    if rank:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (it stays open until the process ends)


def stop() -> None:
    """Leave the other ranks. From now on this process is on its own: rank 0 of 1."""
    if _store:
        dist.destroy_process_group()
        _store.clear()


def rank() -> int:
    """The number of this process."""
    return dist.get_rank() if _store else 0


def count() -> int:
    """The number of processes."""
    return dist.get_world_size() if _store else 1


class Worker(NamedTuple):
    """Which worker this process belongs to."""

    number: int
    total: int  # the number of workers
    writes: bool  # one rank of each worker writes its files


def worker(model: nn.Module) -> Worker:
    """The worker of this process: the ranks that share this model."""
    share = getattr(model, "share", None)
    size = share.ranks if share else 1
    return Worker(rank() // size, count() // size, rank() % size == 0)


def share_out(work: Sequence[T], model: nn.Module) -> Sequence[T]:
    """This worker's part of the work. What there is to do is what rank 0 says."""
    here = worker(model)
    return broadcast(work)[here.number :: here.total]


def do_jobs(jobs: Mapping[str, Callable[[], T]], watch: Callable[[str], None]) -> dict[str, T]:
    """Do these jobs. A rank that is free takes the next one, so the longest should come first.

    Args:
        watch: called with the name of each job as it begins.

    Returns:
        Name -> what the job returned, sorted by name: of all jobs on rank 0, and of its own jobs
            on the others.
    """
    names, key = list(jobs), f"jobs {next(_numbers)}"
    done: dict[str, T] = {}
    while (number := _store[0].add(key, 1) - 1 if _store else len(done)) < len(names):
        watch(names[number])
        done[names[number]] = jobs[names[number]]()
    return dict(sorted(gather(done).items()))


def broadcast(value: T) -> T:
    """The value that rank 0 has, on every rank."""
    if not _store:
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def gather(parts: dict[str, T]) -> dict[str, T]:
    """On rank 0, what all ranks have under any name. On the others, their own part."""
    if not _store:
        return parts
    every: list[Any] | None = [{}] * count() if rank() == 0 else None
    dist.gather_object(parts, every)
    return {name: value for part in every or [parts] for name, value in part.items()}


def wait() -> None:
    """Return when all ranks have come here."""
    if _store:
        dist.barrier()


def rank_0_first(make: Callable[[], T]) -> T:
    """What `make` returns. The other ranks call it when rank 0 has."""
    if rank():
        wait()
    made = make()
    if not rank():
        wait()
    return made


def average(x: Tensor) -> Tensor:
    """The mean of a tensor over all ranks."""
    if _store:
        x = x.detach().clone()
        dist.all_reduce(x)
        x /= count()
    return x


def with_shared_gradients(model: nn.Module) -> nn.Module:
    """A model whose gradients, after `backward`, are the mean of all ranks' gradients."""
    return DistributedDataParallel(model) if _store else model


class SharedProgress(Progress):
    """Counts what all ranks have done, and prints it on rank 0. All ranks must make one."""

    def __init__(self, total: int, label: str, unit: str, model: nn.Module):
        super().__init__(total, label, unit)
        self.counts = worker(model).writes  # the ranks of a worker do the same work
        self.key = f"progress {next(_numbers)}"

    def advance(self, done: int, amount: int, *, note: str = "") -> None:
        if _store:
            done, amount = done * self.counts, amount * self.counts
            done = _store[0].add(f"{self.key} done", done) - self.done
            amount = _store[0].add(f"{self.key} amount", amount) - self.amount
        if rank() == 0:
            super().advance(done, amount, note=note)

    def finish(self) -> None:
        """Wait for the other ranks, and print the last line if another one did the last work."""
        wait()
        if self.done < self.total:
            self.advance(0, 0)


def check_shares(model: nn.Module, settings: Mapping[str, Any], batches: int) -> None:
    """`check_same`, and check that every worker has work to do.

    Args:
        batches: the number of batches, which are shared out among the workers.

    Raises:
        ValueError: on every rank.
    """
    check_same(settings, model)
    workers = worker(model).total
    if workers > batches:
        raise ValueError(
            f"more workers ({workers}) than batches of roles ({batches}): start at most "
            f"{batches * (count() // workers)} ranks, or choose a smaller batch size"
        )


def check_same(settings: Mapping[str, Any], model: nn.Module | None = None) -> None:
    """Check that all ranks have the same settings and, if they have loaded a model, weights.

    Args:
        settings: what the results depend on.

    Raises:
        ValueError: on every rank. It names a rank that has something else than rank 0, and what.
    """
    if not _store:
        return
    size = count() // worker(model).total if model else 1
    sums = {name: crc32(repr(value).encode()) for name, value in settings.items()}
    every: list[Any] = [None] * count()
    parameters = model.parameters() if model else ()
    dist.all_gather_object(every, (sums, [_sum_of_bits(p) for p in parameters]))
    for other, (its_sums, its_weights) in enumerate(every):
        first_sums, first_weights = every[other % size]  # of the first worker's same part
        differ = [name for name in sums if its_sums[name] != first_sums[name]]
        if its_weights != first_weights and "weights" not in differ:
            differ.append("weights")
        if differ:
            raise ValueError(
                f"rank {other} has another {', '.join(differ)} than rank {other % size}: give all "
                "ranks the same arguments and the same files"
            )


def weights_sum(model: nn.Module) -> int:
    """A sum that tells a model from another one of the same name, however many ranks share it.

    It counts only matrices that ranks cut into parts without overlap. So it does not see a change
    of k_proj, v_proj, embeddings or norms alone.
    """
    others = ("k_proj.weight", "v_proj.weight", "embed_tokens.weight", "lm_head.weight")
    named = model.named_parameters()
    sums = [sum(_sum_of_bits(p) for name, p in named if p.ndim > 1 and not name.endswith(others))]
    if share := getattr(model, "share", None):
        sums *= share.ranks
        dist.all_gather_object(sums, sums[0], group=share.group)
    return sum(sums)


def _sum_of_bits(p: Tensor) -> int:
    """The sum of bit patterns. A sum of floats would also depend on the number of threads."""
    return int(p.detach().flatten().view(_INTEGERS[p.itemsize]).sum())


def print_error(line: str) -> None:
    """Print an error to stderr, but only once if all ranks have it."""
    try:
        if _store and _store[0].add("errors", 1) > 1:
            return
    except RuntimeError:  # the store is gone, because torchrun has ended
        pass
    print(f"rank {rank()}: {line.strip()}" if count() > 1 else line, file=sys.stderr)
