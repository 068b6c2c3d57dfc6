"""Training the tiny model from nothing: two phases, one loop, and Muon written out.

Pre-training and post-training differ in their documents (which dialogues, and on which tokens
the loss is taken) and in their learning rates, and in nothing else. Both write dialogues with the
same marks: `<|assistant|>` only says whose turn it is, and who answers there has to be learned.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minaxis.chat import Message, encode_chat, response_mask
from minaxis.model import Transformer
from minaxis.support.files import read_tensors, write_tensors
from minaxis.support.progress import Progress
from minaxis.tiny.world import World
from minaxis.tokenizer import SMOLLM, Tokenizer, train_bpe

IGNORE = -100  # a target on which no loss is taken
MARKS = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
Document = tuple[list[int], list[int]]  # ids, and for each position the id to predict there


def orthogonalise(g: Tensor, steps: int = 5) -> Tensor:
    """The orthogonal matrices nearest to g (n, rows, columns), roughly: all singular values near 1.

    A Newton-Schulz iteration: an odd polynomial in g moves its singular values and leaves its
    singular vectors as they are; these coefficients move small ones up fastest.
    """
    x = g / (g.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    if g.shape[-2] > g.shape[-1]:
        return orthogonalise(g.mT, steps).mT  # the products below are smaller for wide matrices
    for _ in range(steps):
        s = x @ x.mT
        x = 3.4445 * x + (-4.7750 * s + 2.0315 * s @ s) @ x
    return x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised: every direction of a matrix learns at the same pace.

    For the matrices inside a network. Embeddings and norms are no maps from one space to
    another; they are AdamW's.
    """

    def __init__(self, params, lr: float, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for p in group["params"]:
                by_shape.setdefault(p.shape, []).append(p)
            for (rows, columns), params in by_shape.items():  # one batched product for each shape
                updates = []
                for p in params:
                    m = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    m.lerp_(p.grad, 1 - group["momentum"])
                    updates.append(p.grad.lerp(m, group["momentum"]))  # Nesterov: look ahead
                scale = max(1, rows / columns) ** 0.5
                for p, u in zip(params, orthogonalise(torch.stack(updates)), strict=True):
                    p.add_(u, alpha=-group["lr"] * scale)


def optimisers(model: Transformer, muon_lr: float, adam_lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for embeddings and norms."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    chosen = set(map(id, matrices))
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [
        Muon(matrices, muon_lr),
        torch.optim.AdamW(others, adam_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def document(tokenizer: Tokenizer, messages: list[Message], replies_only: bool) -> Document:
    """A dialogue to learn from: every token of it, or the replies and their ends alone."""
    if not replies_only:
        ids = encode_chat(tokenizer, messages, add_generation_prompt=False)
        return ids[:-1], ids[1:]
    ids, mask = response_mask(tokenizer, messages)
    # The token after a reply ends the turn: when to stop is learned too.
    learn = [a or b for a, b in zip(mask, [False, *mask], strict=False)]
    targets = [i if keep else IGNORE for i, keep in zip(ids, learn, strict=True)]
    return ids[:-1], targets[1:]


def batches(docs: Sequence[Document], size: int, rng: Random) -> list[list[Document]]:
    """Cut documents into batches of about `size` tokens, similar lengths together, shuffled."""
    docs = sorted(docs, key=lambda d: len(d[0]) * rng.uniform(0.9, 1.1))
    cut, batch = [], []
    for doc in docs:
        if batch and (len(batch) + 1) * max(len(d[0]) for d in [*batch, doc]) > size:
            cut.append(batch)
            batch = []
        batch.append(doc)
    cut.append(batch)
    rng.shuffle(cut)
    return cut


def loss_of(model: Transformer, batch: Sequence[Document]) -> Tensor:
    """Mean cross-entropy of a batch, in nats a learned token."""
    length = max(len(ids) for ids, _ in batch)
    device = model.lm_head.weight.device
    # Padding stands at the right, where causal attention never looks, and has no target.
    ids = torch.tensor([i + [0] * (length - len(i)) for i, _ in batch], device=device)
    targets = torch.tensor([t + [IGNORE] * (length - len(t)) for _, t in batch], device=device)
    return F.cross_entropy(model(ids).flatten(0, 1), targets.flatten(), ignore_index=IGNORE)


def schedule(step: int, steps: int) -> float:
    """What the learning rates are multiplied by: a short rise, then a straight fall to zero."""
    return min((step + 1) / (0.02 * steps + 1), 1 - step / steps)


def train(
    model: Transformer,
    optimisers: Sequence[torch.optim.Optimizer],
    batches: Sequence[Sequence[Document]],
    first: int = 0,
) -> Iterator[tuple[int, float]]:
    """Learn the batches from number `first` on; yields (batches learned, loss) after each."""
    model.train()
    rates = [g.setdefault("initial_lr", g["lr"]) for o in optimisers for g in o.param_groups]
    for step in range(first, len(batches)):
        loss = loss_of(model, batches[step])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser, rate in zip(optimisers, rates, strict=True):
            optimiser.param_groups[0]["lr"] = rate * schedule(step, len(batches))
            optimiser.step()
            optimiser.zero_grad()
        yield step + 1, loss.item()
    model.eval()


@torch.no_grad()
def validation(model: Transformer, docs: Sequence[Document]) -> float:
    """Mean loss on documents that were not trained on, in nats a learned token."""
    total = count = 0
    for batch in batches(docs, 4096, Random(0)):
        n = sum(t != IGNORE for _, targets in batch for t in targets)
        total, count = total + loss_of(model, batch).item() * n, count + n
    return total / count


def world_tokenizer(world: World, size: int, rng: Random) -> Tokenizer:
    """Byte-pair encoding learned from the world's own text, with the marks of its dialogues."""
    dialogues = [make(rng) for _ in range(2000) for make in (world.story, world.lesson)]
    texts = [m["content"] for d in dialogues for m in d]
    ranks = train_bpe(texts, size - len(MARKS))
    special = {mark: len(ranks) + i for i, mark in enumerate(MARKS)}
    return Tokenizer(ranks, SMOLLM, special, stop=[special["<|end|>"]], chat_template=TEMPLATE)


@dataclass
class Phase:
    """What is learned, how fast, and what tells whether it was."""

    name: str
    batches: list[list[Document]]
    held_out: list[Document]
    muon_lr: float
    adam_lr: float


def phases(
    world: World, tokenizer: Tokenizer, pre: float, post: float, batch: int, rng: Random
) -> list[Phase]:
    """Both phases of so many tokens, in batches of `batch`; each dialogue is read once.

    Post-training takes its loss on the replies of lessons. Its second part, a third, is stories
    as before: without this replay the model forgets most of its characters. Its learning rates
    are a quarter of pre-training's, for the same reason.
    """

    def stories(tokens: float) -> list[Document]:
        return _documents(tokenizer, lambda: world.story(rng), tokens, replies_only=False)

    def lessons(tokens: float) -> list[Document]:
        return _documents(tokenizer, lambda: world.lesson(rng), tokens, replies_only=True)

    held_out = stories(2e4), lessons(2e4)
    learned = stories(pre), lessons(0.65 * post) + stories(0.35 * post)
    return [
        Phase("tiny-base", batches(learned[0], batch, rng), held_out[0], 0.02, 0.004),
        Phase("tiny", batches(learned[1], batch, rng), held_out[1], 0.005, 0.001),
    ]


def _documents(tokenizer, dialogue: Callable, tokens: float, replies_only: bool) -> list[Document]:
    found = []
    while tokens > 0:
        found.append(document(tokenizer, dialogue(), replies_only))
        tokens -= len(found[-1][0])
    return found


def learn(
    model: Transformer,
    phase: Phase,
    settings: dict,
    file: Path,
    watch: Callable[[int, int], None],
    every: float = 15.0,
) -> None:
    """Learn a phase; if `file` says that this was begun before, learn the rest of it.

    Args:
        settings: of the run; a file that was written under others is an error.
        file: where the state is kept every so many seconds; removed at the end.
        watch: called as `watch(step, steps)` at a fifth, two fifths ... of the phase.
    """
    tools, first, steps = optimisers(model, phase.muon_lr, phase.adam_lr), 0, len(phase.batches)
    if file.exists():
        saved = read_tensors(file)
        if saved["settings"] != settings or saved["phase"] != phase.name:
            raise ValueError(f"{file} is of another run: choose another --out, or delete it")
        model.load_state_dict(saved["weights"])
        for tool, state in zip(tools, saved["optimisers"], strict=True):
            tool.load_state_dict(state)
        first = saved["step"]
        print(f"{phase.name}: continues after step {first} of {steps}")
    progress, average, kept = Progress(steps - first, phase.name, "tokens"), None, time.monotonic()
    for step, loss in train(model, tools, phase.batches, first):
        average = loss if average is None else 0.95 * average + 0.05 * loss
        tokens = sum(len(ids) for ids, _ in phase.batches[step - 1])
        progress.advance(1, tokens, f"  loss {average:.3f}")
        if step * 5 // steps != (step - 1) * 5 // steps:
            watch(step, steps)
        if time.monotonic() - kept > every:
            state = {"settings": settings, "phase": phase.name, "step": step}
            tensors = {"weights": model.state_dict(), "optimisers": [t.state_dict() for t in tools]}
            write_tensors(file, state | tensors)
            kept = time.monotonic()
    file.unlink(missing_ok=True)
