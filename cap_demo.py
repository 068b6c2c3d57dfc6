"""Ask a model something twice, plain and capped, and watch the Assistant Axis while it answers.

    python cap_demo.py --model smollm2 "Who are you?"          # 15 s, after fit_axis.py
    python cap_demo.py --model smollm2 --steer -0.5 "Who are you?" "And what do you fear?"

Every message is one turn of a conversation; plain, capped and steered each go their own way. The
number is the mean projection of an answer on the unit axis, toward the Assistant; the bars (on a
terminal, the colours) are its tokens.
"""

import sys
from contextlib import nullcontext
from pathlib import Path

import minaxis as mx
from minaxis import cli
from minaxis.cap import default_layers
from minaxis.files import write_json
from minaxis.hooks import check_layers
from minaxis.meter import bars, coloured, token_projections


def arguments():
    p = cli.parser(__doc__)
    add = p.add_argument
    add("messages", nargs="+", help="what the user says, one turn each")
    add("--axis", type=Path, help="axis file; None is out/MODEL/axis.pt")
    add("--system", default="", help="system prompt, for example a role")
    add("--layers", type=int, nargs="+", help="to cap; None is from 0.70 to 0.90 of the depth")
    add("--percentile", type=float, default=75, help="of the calibration, the floor")
    add("--steer", type=float, metavar="C", help="also steer, by C mean residual norms")
    add("--tokens", type=int, default=64, help="most tokens an answer")
    add("--out", type=Path, help="JSON file for settings, answers and projections")
    return p.parse_args()


def main():
    args = arguments()
    model, tokenizer = mx.load(args.model, args.dtype, args.device, args.download)
    path = args.axis or cli.out(args) / "axis.pt"
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file; make it with: python fit_axis.py --model {args.model}"
        )
    axis = mx.Axis.load(path)
    axis.check(model)
    count = model.config.num_hidden_layers
    layers = check_layers(args.layers or default_layers(count), count)
    ways = {
        "plain": nullcontext,
        "capped": lambda: mx.capping(model, axis, layers, args.percentile),
    }
    if args.steer is not None:
        ways["steered"] = lambda: mx.steering(model, axis, args.steer)
    watch = max(layers)  # where the last cap acts
    low, high = (axis.thresholds(p)[watch].item() for p in (2, 98))
    print(
        f"capped at layers {layers[0]} to {layers[-1]}; projections at layer {watch}, where the "
        f"floor is {axis.thresholds(args.percentile)[watch].item():.1f}"
    )

    histories = {way: [{"role": "system", "content": args.system}] for way in ways}
    turns = []
    for turn, message in enumerate(args.messages):
        print(f"\n> {message}")
        for way, intervention in ways.items():
            history = [*histories[way], {"role": "user", "content": message}]
            prompt = mx.encode_chat(tokenizer, history)
            with intervention():
                (answer,) = mx.generate(
                    model, tokenizer, [prompt], args.tokens, args.temperature, args.top_p,
                    seed=args.seed + turn,
                )  # fmt: skip
                along = token_projections(model, axis, prompt + answer, watch)[len(prompt) :]
            text = tokenizer.decode(answer)
            histories[way] = [*history, {"role": "assistant", "content": text}]
            mean = along.mean().item() if answer else None
            show(tokenizer, way, answer, along, mean, low, high)
            turns.append({"message": message, "way": way, "answer": text, "projection": mean})
    if args.out:
        write_json(args.out, {"settings": cli.settings(args), "turns": turns})


def show(tokenizer, way, answer, along, mean, low, high):
    if not answer:
        print(f"\n{way:8s} (no answer)")
    elif sys.stdout.isatty():
        print(f"\n{way:8s} {mean:7.1f}\n{coloured(tokenizer, answer, along, low, high)}")
    else:
        print(f"\n{way:8s} {mean:7.1f}  {bars(along, low, high)}\n{tokenizer.decode(answer)}")


if __name__ == "__main__":
    cli.run(main)
