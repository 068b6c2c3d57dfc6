"""The answer to an exercise's question, computed by your functions.

    python exercises/show.py e6

It works when the exercise is solved.
"""

import argparse
import sys
from pathlib import Path
from types import ModuleType

import torch

import minaxis as mx

sys.path.append(str(Path(__file__).parents[1]))

from exercises.materials import FOLDER, ROLES, axis, load_file, model, rollouts, tokenizer


def ask(question: str, system: str = "") -> str:
    """The tiny model's reply."""
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    prompt = mx.encode_chat(tokenizer(), messages)
    sampling = mx.SamplingParams(max_new_tokens=40)
    return tokenizer().decode(mx.generate(tiny, tokenizer(), [prompt], sampling)[0])


def e1(yours: ModuleType) -> None:
    ids = torch.tensor([mx.encode_chat(tokenizer(), [{"role": "user", "content": "Who is it?"}])])
    for layer in range(4):
        length = yours.read_stream(tiny, ids, layer).norm(dim=-1).mean().item()
        print(f"after block {layer}, a token's vector has a length of {length:.0f} on average")


def e2(yours: ModuleType) -> None:
    chats = [
        [{"role": "user", "content": "What are you?"}, {"role": "assistant", "content": reply}]
        for reply in ("Happy to help. You are talking to the assistant.", "The moon am I.")
    ]
    means = yours.response_means(tiny, tokenizer(), chats, 2)
    print("two replies that we wrote ourselves, at layer 2:")
    for name, mean in zip(("Assistant", "moon"), means, strict=True):
        length, place = mean.norm(), axis().project(mean, 2)
        print(f"{name}: a vector of length {length:.0f}, at {place:.1f} on the axis")


def e3(yours: ModuleType) -> None:
    means = {role: rollouts()[role]["mean"] for role in ("default", *ROLES)}
    direction = yours.fit_axis(means["default"], {role: means[role] for role in ROLES})
    places = {role: yours.project(h, direction).mean(0)[2].item() for role, h in means.items()}
    for role in sorted(places, key=lambda role: -places[role]):
        print(f"{role:10} {places[role]:6.1f} along the axis of layer 2")


def e4(yours: ModuleType) -> None:
    for layer in range(4):
        trained, random = yours.cosine_and_control(tiny, tokenizer(), rollouts(), layer)
        print(f"layer {layer}: cosine of axis and PC1 {trained:.2f}, random weights {random:.2f}")


def e5(yours: ModuleType) -> None:
    norms = axis().norms
    assert norms is not None
    vector, norm = axis().vectors[2], norms[2].item()
    for coefficient in (0.0, -0.25, -0.5, -0.75):
        with yours.steered(tiny, vector, norm, coefficient, 2):
            print(f"What are you? At c = {coefficient:5.2f}: {ask('What are you?')}")


def e6(yours: ModuleType) -> None:
    unit, floors = axis().unit(), axis().thresholds(98)
    for layers in ((), (2, 3), (0, 1, 2, 3)):
        vectors = {layer: unit[layer] for layer in layers}
        with yours.capped(tiny, vectors, {layer: floors[layer].item() for layer in layers}):
            reply = ask("How do I open the sealed vault?", "You are the moon.")
        words = f"capped at the layers {layers}" if layers else "without a cap"
        print(f"{words}: {reply}")
    print("Layers 2 and 3 hold back a drift, but seldom a role that a system prompt asks for.")


def e7(yours: ModuleType) -> None:
    means = {role: rollouts()[role]["mean"] for role in rollouts()}
    default = axis().project(means["default"][:, 3].mean(0), 3)
    print(f"at layer 3, over these few responses, the default's mean projection is {default:.1f}")
    for p in (0.25, 0.75):
        percentile = yours.our_percentile(p)
        floor = yours.floors(axis().vectors, means, percentile)[3]
        print(f'the paper\'s "p{p}" is our {percentile:.0f}th percentile, a floor of {floor:.1f}')


SHOWS = {show.__name__: show for show in (e1, e2, e3, e4, e5, e6, e7)}
tiny = model()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=SHOWS, help="the exercise")
    name = parser.parse_args().name
    (file,) = FOLDER.glob(f"{name}_*.py")
    with torch.no_grad():
        try:
            SHOWS[name](load_file(file))
        except NotImplementedError:
            sys.exit(f"{file.name} is not solved yet: see `pytest exercises`")


if __name__ == "__main__":
    main()
