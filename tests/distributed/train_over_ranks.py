"""Train a small model in two runs, and write its losses and weights: called by torchrun.

torchrun --nproc-per-node N train_over_ranks.py FOLDER      # twice: the first run is interrupted
"""

import json
import sys
from contextlib import suppress
from pathlib import Path
from random import Random

import torch

import minaxis as mx
from minaxis.distributed import ranks
from minaxis.tiny import training
from minaxis.tiny.documents import document, token_batches, train_tokenizer
from minaxis.tiny.phases import Phase
from minaxis.tiny.world import World

folder = Path(sys.argv[1])
ranks.start()
world, rng = World(), Random(0)
tokenizer = train_tokenizer(world, 300, rng)
docs = [document(tokenizer, world.story(rng), replies_only=False) for _ in range(60)]
batches = token_batches(docs, 600, rng)
batches[0] = batches[0][:1]  # fewer documents than ranks
config = mx.Config(
    vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
    num_attention_heads=2, num_key_value_heads=2, head_dim=16,
)  # fmt: skip
model = mx.Transformer(config).initialise(torch.Generator().manual_seed(0))

file, record = folder / "resume.pt", folder / "losses.json"
losses = json.loads(record.read_text()) if record.exists() else []
half = [] if losses else [len(batches) // 2]
steps = training.training_steps


def until_half(*args):
    """The steps of training, whose losses are kept, until half of them in the first run."""
    for step, loss in steps(*args):
        losses.append(loss)
        yield step, loss
        if step in half:
            raise KeyboardInterrupt


training.training_steps = until_half
phase = Phase("some", batches, docs[:5], 0.02, 0.004)
ranks.wait()  # all have read the record
with suppress(KeyboardInterrupt):
    training.train_phase(
        model, phase, settings={}, file=file, watch=lambda *_: None, save_seconds=0
    )
ranks.wait()
if ranks.rank() == 0:
    record.write_text(json.dumps(losses))
    torch.save(model.state_dict(), folder / "weights.pt")
ranks.stop()
