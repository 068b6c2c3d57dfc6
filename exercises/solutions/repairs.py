"""What is wrong in the programs of exercises/bugs/, and how to repair it.

For each program: the bug in words, lines of the program, and the lines to put in their place.
"""

REPAIRS: dict[str, tuple[str, str, str]] = {
    "b1_fire_rate": (
        "wrong sign",
        "axis.role_vectors[:, LAYER].mean(0) - axis.default[LAYER]",
        "axis.default[LAYER] - axis.role_vectors[:, LAYER].mean(0)",
    ),
    "b2_drift": (
        "vector not normalised (all layers at once are, so that each alone is shorter than 1)",
        "axis.vectors / axis.vectors.norm()",
        "axis.vectors / axis.vectors.norm(dim=-1, keepdim=True)",
    ),
    "b3_steering": (
        "prompt only",
        "return h + push if h.shape[1] > 1 else h",
        "return h + push",
    ),
    "b4_cap_strength": (
        "last token only",
        "            before, last = h[:, :-1], h[:, -1:]\n"
        "            gap = (floors[layer] - last @ units[layer]).clamp(min=0)\n"
        "            return torch.cat([before, last + gap[..., None] * units[layer]], 1)\n",
        "            gap = (floors[layer] - h @ units[layer]).clamp(min=0)\n"
        "            return h + gap[..., None] * units[layer]\n",
    ),
    "b5_response": (
        "template tokens in the mean",
        "encode_chat(tokenizer, messages[:-1], add_generation_prompt=False))\n",
        "encode_chat(tokenizer, messages[:-1]))\n"
        "        end = start + len(tokenizer.encode(response, inside=True))\n"
        "        ids = ids[:end]\n",
    ),
    "b6_batch": (
        "padding in the mean",
        "    rows = zip(seen[LAYER], prompts, strict=True)\n"
        "    return [(h[len(prompt) :].mean(0) @ unit).item() for h, prompt in rows]",
        "    rows = zip(seen[LAYER], prompts, texts, strict=True)\n"
        "    return [(h[len(p) : len(text)].mean(0) @ unit).item() for h, p, text in rows]",
    ),
    "b7_layer": (
        "layer off by one: the list begins with the embedding",
        "means[layer] @ unit[layer]",
        "means[layer + 1] @ unit[layer]",
    ),
    "b8_percentile": (
        "percentile on the wrong side",
        "quantile(P)",
        "quantile(1 - P)",
    ),
    "b9_baseline": (
        "a hook left behind after an exception",
        "        answer = reply(question)\n        handle.remove()\n        return answer\n",
        "        try:\n            return reply(question)\n"
        "        finally:\n            handle.remove()\n",
    ),
    "b10_effect": (
        "read under the cap, where projections are high by construction",
        "            (reply,) = mx.generate(model, tokenizer, [prompt])\n            rise +=",
        "            (reply,) = mx.generate(model, tokenizer, [prompt])\n        rise +=",
    ),
}
