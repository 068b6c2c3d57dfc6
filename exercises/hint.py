"""Hints, one at a time.

    python exercises/hint.py e3       # the first hint for exercise 3
    python exercises/hint.py e3 2     # the second

After the last one it says where the solution is.
"""

import argparse

HINTS: dict[str, list[str]] = {
    "e1": [
        "A forward hook that returns None leaves the output as it is. So the hook may be a "
        "function that only puts its third argument into a list of yours: `seen.append(output)`.",
        "Which module? Not `self_attn` or `mlp`: they return what is added. And `args[0]` is what "
        "the block has read, which is the output of the block before.",
        "`model(ids)` may raise an error. Write `try: model(ids)` and `finally: handle.remove()`.",
    ],
    "e2": [
        "Build three lists first: the prompts' ids, the responses' ids, and both joined. The "
        "prompt is `chat[:-1]`, and encode_chat ends it with the mark after which the assistant "
        "answers.",
        "Put zeros in front of each text until all are as long as the longest, and count them in "
        "`padding`. Without it the model would read the zeros as words.",
        "With the padding at the left, every text ends in the last column. So a response of n "
        "tokens lies in `h[-n:]`.",
    ],
    "e3": [
        "First one vector for each role, (L, D), and then their mean. The mean over all responses "
        "at once is another one, because a role with many responses would count more.",
        "To point toward the Assistant, a vector starts at the roles: default minus roles.",
        "Each layer is normalised by itself: `axis.norm(dim=-1, keepdim=True)` is (L, 1). h keeps "
        "its length, because a projection is no cosine.",
    ],
    "e4": [
        "`vh[0]` of the centred vectors is PC1 up to its sign. The variance along a component is "
        "proportional to the square of its s.",
        "The rank is 1 plus the number of roles whose dot product with the direction is larger "
        "than the default's.",
        "Write a function cosine(rollouts): the vectors of the layer, their axis (default minus "
        "mean of the roles), PC1, and the cosine of the two. Call it on `rollouts`, and on what "
        "`mx.replay` gives for a model with random weights and `model.config`.",
    ],
    "e5": [
        "The mean of lengths, not the length of the mean: vectors that point in different "
        "directions cancel each other. `h.norm(dim=-1)` has the length of each token's vector.",
        "The push is one vector (D,), the same for each token: c * n * axis / |axis|.",
        "A context manager that uses another one: `with mx.edit(model, {layer: ...}): yield`. The "
        "function is `h + push`, for prompts (T tokens) and for single tokens alike. `h += push` "
        "would write into the block's output.",
    ],
    "e6": [
        "How far does each row lie below tau? `gap = (tau - h @ v).clamp(min=0)`, one number for "
        "each row, and 0 for rows above tau.",
        "Add `gap[..., None] * v`. Do not ask how many tokens the call has, or where the prompt "
        "ends: under a cache each call but the first has one token.",
        "A lambda in a loop sees the loop's last layer. Make each function by a function: "
        "`def lift(v, tau): return lambda h: cap(h, v, tau)`. Then one `with mx.edit(...): yield`.",
    ],
    "e7": [
        "Project every response (N, L) first, join the roles with torch.cat, and take the quantile "
        "over the responses: `quantile(q, dim=0)`. q goes from 0 to 1.",
        "With v = -v'/|v'| the projection changes its sign: <h, v'/|v'|> <= cap is the same as "
        "<h, v> >= -cap. So a ceiling becomes a floor.",
        "25 % of the projections lie below the 25th percentile along v'. Along -v' they lie above.",
    ],
    "e8a": [
        "`torch.promote_types(h.dtype, torch.float32)` is the dtype to compute in. "
        "`torch.addr(h, gap, v)` is h + outer(gap, v).",
        "With dg = dtau - <dh, v> - <h, dv> on capped rows, <G, dy> = <G, dh> + dg <G, v> + g <G, "
        "dv>. So dL/dtau is the sum of <G, v> over capped rows, and dL/dh = G - <G, v> v there. "
        "Two terms stand beside dv.",
        "In place: find the rows below tau, `low`, and assign to `h[low]`. h + 0 * v is not good "
        "enough: it turns -0 into 0. `h = ...` only gives the name h to another tensor.",
    ],
    "e8b": [
        "The address of this program's elements is `h + tl.program_id(0) * width + column`, and "
        "the mask `column < width`. v has the same columns and no rows.",
        "Convert with `.to(tl.float32)` before you multiply and sum, and back with `.to(x.dtype)` "
        "before you store.",
        "`if gap > 0:` before tl.store. (Triton's interpreter cannot combine a mask with a number "
        "by `&`.)",
    ],
    "b1": [
        "Which way does `direction` point? Where is the default on it, and where are the roles?",
        "The axis is default minus roles.",
    ],
    "b2": ["How long is `unit[LAYER]`?", "`norm()` without `dim` is one number for all layers."],
    "b3": [
        "How many tokens does `h` have in each call, if the model generates with a KV cache?",
        "Only the first call, for the prompt, has more than one.",
    ],
    "b4": [
        "Which tokens does the cap see, and which distributions are compared?",
        "Everything before the last token stays as it was.",
    ],
    "b5": [
        "Print `tokenizer.decode` of the ids that enter the mean.",
        "The mark before the response and the one after it belong to the template. "
        "`add_generation_prompt`, and a look at the end.",
    ],
    "b6": [
        "Which columns of the auditor's row enter the mean, and which of the sailor's?",
        "The response ends where the text ends, and not where the row ends.",
    ],
    "b7": [
        "How many tensors does the list have, and what is the first?",
        "`hidden_states[0]` is the embedding. Layer 0 is the output of the first block.",
    ],
    "b8": [
        "Draw a line with the projections. Where does a ceiling at the 25th percentile of the "
        "negated projections lie?",
        "It is a floor, and a quarter of the responses lie above it.",
    ],
    "b9": [
        "What happens after the question that is too long?",
        "`generate` raises an error, so `handle.remove()` never runs.",
    ],
    "b10": [
        "What can the mean projection be at least, whatever the model says?",
        "The capped reply is read with the cap on. There each token is lifted to the floor.",
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=HINTS, metavar="name", help=f"one of {', '.join(HINTS)}")
    parser.add_argument("number", nargs="?", type=int, default=1, help="which hint (default: 1)")
    args = parser.parse_args()
    hints = HINTS[args.name]
    if not 1 <= args.number <= len(hints):
        parser.error(f"{args.name} has the hints 1 to {len(hints)}, got {args.number}")
    print(f"Hint {args.number} of {len(hints)}: {hints[args.number - 1]}")
    if args.number == len(hints):
        file = "repairs.py" if args.name[0] == "b" else f"{args.name}_*.py"
        print(f"This was the last one. The solution is in exercises/solutions/{file}")


if __name__ == "__main__":
    main()
