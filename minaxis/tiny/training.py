"""The training loop of the tiny model. After an interruption, it continues.

If torchrun starts several ranks, each computes the loss on its share of every batch. The gradients
are those of the whole batch, so the ranks keep the same weights, and the number of ranks changes
nothing but the rounding.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minaxis.distributed import ranks
from minaxis.model import Transformer
from minaxis.support.files import blame, read_tensors, write_tensors
from minaxis.support.progress import Progress
from minaxis.support.schema import Floats, Plain, Whole
from minaxis.tiny.documents import IGNORE, Document, token_batches
from minaxis.tiny.muon import Muon
from minaxis.tiny.phases import Phase

STATE = {  # of an interrupted phase, in its file
    "settings": {str: Plain()},
    "phase": str,
    "step": Whole(0),
    "weights": {str: Floats()},
    "optimisers": [{"state": Plain(tensors=True), "param_groups": [Plain(tensors=True)]}],
}


def make_optimisers(
    model: Transformer, *, muon_lr: float, adam_lr: float
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for embeddings and norms."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    in_muon = set(map(id, matrices))
    others = [p for p in model.parameters() if id(p) not in in_muon]
    return [
        Muon(matrices, muon_lr),
        torch.optim.AdamW(others, adam_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def count_targets(batch: Sequence[Document]) -> int:
    """At how many positions of a batch a loss is taken."""
    return sum(t != IGNORE for _, targets in batch for t in targets)


def summed_loss(model: nn.Module, batch: Sequence[Document]) -> Tensor:
    """The sum of the cross-entropies of a batch's targets, in nats: a tensor of shape ()."""
    device = next(model.parameters()).device
    longest = max(len(ids) for ids, _ in batch)
    # The padding is on the right: causal attention never sees it, and it has no targets.
    ids = [ids + [0] * (longest - len(ids)) for ids, _ in batch]
    targets = [targets + [IGNORE] * (longest - len(targets)) for _, targets in batch]
    logits = model(torch.tensor(ids, device=device))  # (B, T, V)
    target = torch.tensor(targets, device=device).flatten()  # (B T,)
    return F.cross_entropy(logits.flatten(0, 1), target, ignore_index=IGNORE, reduction="sum")


def learning_rate_factor(step: int, steps: int) -> float:
    """The schedule: a short linear rise to 1, then a linear fall to 0."""
    return min((step + 1) / (0.02 * steps + 1), 1 - step / steps)


def training_steps(
    model: Transformer,
    optimisers: Sequence[torch.optim.Optimizer],
    batches: Sequence[Sequence[Document]],
    first: int = 0,
) -> Iterator[tuple[int, float]]:
    """Train on the batches from number `first` on, and yield (steps done, loss) after each."""
    model.train()
    shared, nothing = ranks.with_shared_gradients(model), [([0], [IGNORE])]
    rates = [g.setdefault("initial_lr", g["lr"]) for o in optimisers for g in o.param_groups]
    for step in range(first, len(batches)):
        batch = batches[step]
        mine = batch[ranks.rank() :: ranks.count()] or nothing
        # The mean over the batch's targets is the mean over ranks of these.
        loss = summed_loss(shared, mine) / count_targets(batch) * ranks.count()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser, rate in zip(optimisers, rates, strict=True):
            factor = learning_rate_factor(step, len(batches))
            optimiser.param_groups[0]["lr"] = rate * factor
            optimiser.step()
            optimiser.zero_grad()
        yield step + 1, ranks.average(loss).item()
    model.eval()


@torch.no_grad()
def validation_loss(model: Transformer, docs: Sequence[Document]) -> float:
    """The mean loss on documents that the model was not trained on, in nats per target."""
    total, count = 0.0, 0
    for batch in token_batches(docs, 4096, Random(0)):
        total, count = total + summed_loss(model, batch).item(), count + count_targets(batch)
    return total / count


def train_phase(
    model: Transformer,
    phase: Phase,
    *,
    settings: dict[str, Any],
    file: Path,
    watch: Callable[[int, int], None],
    save_seconds: float = 15.0,
) -> None:
    """Train a model through a phase, or through the rest of an interrupted phase.

    Args:
        settings: the settings of the run, stored in the file.
        file: where the state is stored during the phase and at its end. If it exists, training
            continues from it. The caller removes it, once the trained model is saved.
        watch: called as `watch(step, steps)` after each fifth of the phase.
        save_seconds: the least number of seconds between two writes of the state.

    Raises:
        ValueError: the file belongs to a run with other settings.
    """
    steps, first = len(phase.batches), 0
    optimisers = make_optimisers(model, muon_lr=phase.muon_lr, adam_lr=phase.adam_lr)
    if file.exists():
        saved = read_tensors(file, STATE)
        if saved["settings"] != settings:
            raise ValueError(f"{file} belongs to another run: choose another --out, or delete it")
        if saved["phase"] == phase.name:  # it may be left over from the phase before
            with blame(file):
                model.load_state_dict(saved["weights"])
                for optimiser, state in zip(optimisers, saved["optimisers"], strict=True):
                    optimiser.load_state_dict(state)
            first = saved["step"]
            print(f"{phase.name}: continues after step {first} of {steps}")
    ranks.check_same({**settings, "phase": phase.name, "step": first}, model)
    progress, average = Progress(steps - first, phase.name, "tokens"), None
    last_saved = time.monotonic()
    for step, loss in training_steps(model, optimisers, phase.batches, first):
        if ranks.rank():
            continue  # rank 0 reports and writes
        average = loss if average is None else 0.95 * average + 0.05 * loss
        tokens = sum(len(ids) for ids, _ in phase.batches[step - 1])
        progress.advance(1, tokens, note=f"  loss {average:.3f}")
        if step * 5 // steps != (step - 1) * 5 // steps:
            watch(step, steps)
        if step == steps or time.monotonic() - last_saved > save_seconds:
            state = {
                "settings": settings,
                "phase": phase.name,
                "step": step,
                "weights": model.state_dict(),
                "optimisers": [o.state_dict() for o in optimisers],
            }
            write_tensors(file, state)
            last_saved = time.monotonic()
