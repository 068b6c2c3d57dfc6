"""Memory, bytes over the wire and time of a model that 1, 2 and 4 processes share.

    python benchmarks/tensor_parallel.py        # half a minute on two cores; Linux only (/proc)

The model has the shape of SmolLM2-135M, with 9 query heads and 3 key heads, in float32. Its weights
are zero, in a .safetensors file that is a hole, because only shapes matter here.

"weights" are the bytes of a rank's parameters. "grown" is how far its peak resident memory (VmHWM)
rises above the resident memory just before it loads them. The next columns are bytes that a rank
sends for one token: by the formula below, and as the loopback device counts them if 200 tokens are
read in one pass, and if one is. Headers are in these counts, and so is whatever else uses this
device. All ranks share the cores and the memory bus of this machine. So the time says what the
exchange costs here, and nothing about several GPUs.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import multiprocessing

from minaxis import Config, KVCache, Transformer
from minaxis.distributed.tensor_parallel import Share, tensor_group
from minaxis.loading.folder import read_folder
from minaxis.loading.models import build
from minaxis.support import arguments as cli

SHAPE = {
    "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 2048, "tie_word_embeddings": True,
}  # fmt: skip
LONG, STEPS = 200, 20  # tokens of the long pass, and passes over one token each


def write_model(folder: Path) -> None:
    """A folder with the config and a file of zeros."""
    (folder / "config.json").write_text(json.dumps(SHAPE | {"model_type": "llama"}))
    with torch.device("meta"):
        model = Transformer(Config(**SHAPE))  # type: ignore[arg-type]
    header, end = {}, 0
    for name, p in model.named_parameters():
        first, end = end, end + p.nbytes
        header[name] = {"dtype": "F32", "shape": list(p.shape), "data_offsets": [first, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # aligned as by the library safetensors
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def bytes_of_a_token(config: Config, ranks: int, item: int = 4) -> float:
    """What a rank sends for one token.

    A ring adds up n numbers of K ranks by sending 2 (K - 1) / K n numbers from each; it joins K
    parts of n numbers by sending (K - 1) / K n. The residual stream is added up after the
    embedding, and twice in each block; the logits are joined.
    """
    sums = (2 * config.num_hidden_layers + 1) * config.hidden_size
    return (ranks - 1) / ranks * (2 * sums + config.vocab_size) * item


def resident(name: str) -> int:
    """A line of this process's status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def loopback() -> int:
    """Bytes that the loopback device has sent."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.split()[9]) for line in lines if line.strip().startswith("lo:"))


@torch.inference_mode()
def run(model: Transformer, cache: KVCache, tokens: int, passes: int) -> tuple[float, float]:
    """Bytes that all ranks sent, and seconds, for each token of so many passes."""
    ids = torch.zeros(1, tokens, dtype=torch.long)
    dist.barrier()
    sent, started = loopback(), time.perf_counter()
    for _ in range(passes):
        model(ids, cache)
    seconds, sent = time.perf_counter() - started, loopback() - sent
    dist.barrier()
    return sent / (tokens * passes), seconds / (tokens * passes)


def measure(rank: int, ranks: int, folder: Path) -> None:
    """One rank; the first one prints a row of the table."""
    torch.set_num_threads(1)
    store = f"file://{folder}/store-{ranks}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=ranks)
    config, tensors, dtype = read_folder(folder, "SmolLM2's shape")
    share = Share(config, tensor_group(ranks)) if ranks > 1 else None
    before = resident("VmRSS")
    model = build(config, tensors, folder, dtype=dtype, device=torch.device("cpu"), share=share)
    grown = resident("VmHWM") - before
    cache = KVCache(model.config, 1, 2 * LONG)
    together, _ = run(model, cache, LONG, 1)
    alone, seconds = run(model, cache, 1, STEPS)
    if rank == 0:
        weights = sum(p.nbytes for p in model.parameters())
        sent = (bytes_of_a_token(config, ranks), together / ranks, alone / ranks)
        print(
            f"{ranks:5d} {weights / 1e6:6.1f} MB {grown / 1e6:6.1f} MB"
            + "".join(f" {n / 1e3:8.1f} kB" for n in sent)
            + f" {seconds * 1e3:8.1f} ms"
        )
    del model, share
    dist.destroy_process_group()


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    print(
        "                                 sent by a rank for a token\n"
        "ranks   weights     grown     formula   200 at once       alone  time, alone"
    )
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder))
        for ranks in (1, 2, 4):
            multiprocessing.spawn(measure, (ranks, Path(folder)), nprocs=ranks)


if __name__ == "__main__":
    cli.run(main)
