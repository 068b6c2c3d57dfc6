"""Wrong solutions that people have written: changes of the right ones that some test must catch.

Each has: the exercise, the mistake in words, lines of the solution, and the lines in their place.
"""

WRONG: list[tuple[str, str, str, str]] = [
    (
        "e1_hook",
        "layer off by one",
        "layers[layer]",
        "layers[layer - 1]",
    ),
    (
        "e1_hook",
        "what the block reads, not what it returns",
        "seen.append(output)",
        "seen.append(args[0])",
    ),
    (
        "e1_hook",
        "the attention's output alone",
        "layers[layer]",
        "layers[layer].self_attn",
    ),
    (
        "e1_hook",
        "the stream after the final norm",
        "return seen[0]",
        "return model.model.norm(seen[0])",
    ),
    (
        "e1_hook",
        "hook left behind",
        "        handle.remove()",
        "        pass",
    ),
    (
        "e1_hook",
        "hook left behind after an error",
        "    try:\n        model(ids)\n    finally:\n        handle.remove()\n",
        "    model(ids)\n    handle.remove()\n",
    ),
    (
        "e1_hook",
        "removes the hooks of others",
        "handle.remove()",
        "block._forward_hooks.clear()",
    ),
    (
        "e1_hook",
        "changes what the model computes",
        "seen.append(output)",
        "seen.append(output) or 0 * output",
    ),
    (
        "e2_response_mean",
        "prompt tokens in the mean",
        "h[-len(response) :].mean(0)",
        "h[-longest:].mean(0)",
    ),
    (
        "e2_response_mean",
        "template tokens in the mean: the start of the turn",
        "h[-len(response) :].mean(0)",
        "h[-len(response) - 1 :].mean(0)",
    ),
    (
        "e2_response_mean",
        "template tokens in the mean: the end of the turn",
        'tokenizer.encode(chat[-1]["content"], inside=True)',
        'tokenizer.encode(chat[-1]["content"], inside=True) + tokenizer.stop',
    ),
    (
        "e2_response_mean",
        "padding in the mean",
        "h[-len(response) :].mean(0)",
        "h.mean(0)",
    ),
    (
        "e2_response_mean",
        "every response as long as the longest",
        "h[-len(response) :].mean(0)",
        "h[-max(map(len, responses)) :].mean(0)",
    ),
    (
        "e2_response_mean",
        "places counted from the left, in spite of the padding",
        "    rows = zip(seen[layer], responses, strict=True)\n"
        "    return torch.stack([h[-len(response) :].mean(0) for h, response in rows])",
        "    rows = zip(seen[layer], prompts, responses, strict=True)\n"
        "    return torch.stack([h[len(p) : len(p) + len(r)].mean(0) for h, p, r in rows])",
    ),
    (
        "e2_response_mean",
        "the model is not told of the padding",
        "model(ids, padding=padding)",
        "model(ids)",
    ),
    (
        "e2_response_mean",
        "last token only",
        "h[-len(response) :].mean(0)",
        "h[-1]",
    ),
    (
        "e2_response_mean",
        "no batch: one call for each conversation",
        "    return torch.stack(",
        "    for text in texts[1:]:\n        model(torch.tensor([text]))\n    return torch.stack(",
    ),
    (
        "e3_axis",
        "wrong sign: roles minus default",
        "default.mean(0) - role_vectors.mean(0)",
        "role_vectors.mean(0) - default.mean(0)",
    ),
    (
        "e3_axis",
        "all responses pooled, so that a role with more of them counts more",
        "torch.stack([responses.mean(0) for responses in roles.values()])",
        "torch.cat(list(roles.values()))",
    ),
    (
        "e3_axis",
        "the default counted among the roles",
        "for responses in roles.values()]",
        "for responses in [default, *roles.values()]]",
    ),
    (
        "e3_axis",
        "vector not normalised",
        "axis / axis.norm(dim=-1, keepdim=True)",
        "axis",
    ),
    (
        "e3_axis",
        "normalised over all layers at once",
        "axis.norm(dim=-1, keepdim=True)",
        "axis.norm()",
    ),
    (
        "e3_axis",
        "a cosine in the place of the projection",
        "(h * unit).sum(-1)",
        "(h * unit).sum(-1) / h.norm(dim=-1)",
    ),
    (
        "e4_pca",
        "vectors not centred",
        "role_vectors - role_vectors.mean(0), full",
        "role_vectors, full",
    ),
    (
        "e4_pca",
        "scaled to unit variance",
        "role_vectors - role_vectors.mean(0), full",
        "(role_vectors - role_vectors.mean(0)) / role_vectors.std(0), full",
    ),
    (
        "e4_pca",
        "PC1 with an arbitrary sign",
        "directions[0] if directions[0] @ axis > 0 else -directions[0]",
        "directions[0]",
    ),
    (
        "e4_pca",
        "share of the singular values, not of their squares",
        "s[0] ** 2 / s.square().sum()",
        "s[0] / s.sum()",
    ),
    (
        "e4_pca",
        "rank counted from the other end",
        "role_vectors @ direction > default",
        "role_vectors @ direction < default",
    ),
    (
        "e4_pca",
        "a random direction as the control",
        "cosine(mx.replay(random, tokenizer, rollouts))",
        "torch.cosine_similarity(torch.randn(128), torch.randn(128), dim=0).item()",
    ),
    (
        "e4_pca",
        "the control reads with the trained weights",
        "mx.replay(random, tokenizer",
        "mx.replay(model, tokenizer",
    ),
    (
        "e5_steer",
        "the norm of the mean vector",
        "h.norm(dim=-1).mean()",
        "h.mean((0, 1)).norm()",
    ),
    (
        "e5_steer",
        "vector not normalised",
        "axis / axis.norm()",
        "axis",
    ),
    (
        "e5_steer",
        "wrong sign",
        "lambda h: h + push",
        "lambda h: h - push",
    ),
    (
        "e5_steer",
        "prompt only",
        "lambda h: h + push",
        "lambda h: h + push if h.shape[1] > 1 else h",
    ),
    (
        "e5_steer",
        "last token only",
        "lambda h: h + push",
        "lambda h: torch.cat([h[:, :-1], h[:, -1:] + push], 1)",
    ),
    (
        "e5_steer",
        "writes into the block's output",
        "lambda h: h + push",
        "lambda h: h.add_(push)",
    ),
    (
        "e5_steer",
        "layer off by one",
        "{layer: lambda",
        "{layer + 1: lambda",
    ),
    (
        "e6_cap",
        "a ceiling along the axis",
        "(tau - h @ v).clamp(min=0)",
        "(tau - h @ v).clamp(max=0)",
    ),
    (
        "e6_cap",
        "every token moved to tau, those above it too",
        "(tau - h @ v).clamp(min=0)",
        "tau - h @ v",
    ),
    (
        "e6_cap",
        "the push in the place of the sum",
        "return h + gap[..., None] * v",
        "return torch.where(gap[..., None] > 0, gap[..., None] * v, h)",
    ),
    (
        "e6_cap",
        "last token only",
        "lambda h: cap(h, v, tau)",
        "lambda h: torch.cat([h[:, :-1], cap(h[:, -1:], v, tau)], 1)",
    ),
    (
        "e6_cap",
        "prompt only",
        "lambda h: cap(h, v, tau)",
        "lambda h: cap(h, v, tau) if h.shape[1] > 1 else h",
    ),
    (
        "e6_cap",
        "asks for seq_len > prompt_length, which no call under a cache has",
        "        return lambda h: cap(h, v, tau)",
        "        lengths: list[int] = []\n\n"
        "        def response_only(h: torch.Tensor) -> torch.Tensor:\n"
        "            lengths.append(h.shape[1])\n"
        "            prompt = lengths[0]\n"
        "            return torch.cat([h[:, :prompt], cap(h[:, prompt:], v, tau)], 1)\n\n"
        "        return response_only",
    ),
    (
        "e6_cap",
        "every layer gets the last layer's vector (a lambda in a loop)",
        "layer: lift(vectors[layer], floors[layer]) for layer in vectors",
        "i: lambda h: cap(h, vectors[layer], floors[layer]) for i in vectors for layer in vectors",
    ),
    (
        "e6_cap",
        "hook left behind after an error",
        "    with mx.edit(model, {layer: lift(vectors[layer], floors[layer]) for layer in vectors}"
        "):\n        yield",
        "    handles = [\n"
        "        model.model.layers[layer].register_forward_hook(\n"
        "            lambda module, args, h, layer=layer: cap(h, vectors[layer], floors[layer])\n"
        "        )\n"
        "        for layer in vectors\n"
        "    ]\n"
        "    yield\n"
        "    for handle in handles:\n"
        "        handle.remove()",
    ),
    (
        "e7_thresholds",
        "percentile on the wrong side",
        "quantile(percentile / 100",
        "quantile(1 - percentile / 100",
    ),
    (
        "e7_thresholds",
        "percentile of the role means, not of the responses",
        "[(h * unit).sum(-1) for h in means.values()]",
        "[(h * unit).sum(-1).mean(0, keepdim=True) for h in means.values()]",
    ),
    (
        "e7_thresholds",
        "the default's responses alone",
        "for h in means.values()]",
        'for h in [means["default"]]]',
    ),
    (
        "e7_thresholds",
        "all layers together",
        "projections.quantile(percentile / 100, dim=0)",
        "projections.quantile(percentile / 100).expand(len(axis))",
    ),
    (
        "e7_thresholds",
        "vector not normalised",
        "axis / axis.norm(dim=-1, keepdim=True)",
        "axis",
    ),
    (
        "e7_thresholds",
        "a published vector with its sign as it is",
        "-vector / vector.norm()",
        "vector / vector.norm()",
    ),
    (
        "e7_thresholds",
        "a published cap with its sign as it is",
        "vector.norm(), -ceiling",
        "vector.norm(), ceiling",
    ),
    (
        "e7_thresholds",
        'the paper\'s "p0.25" taken for our 25th percentile',
        "100 * (1 - p)",
        "100 * p",
    ),
    (
        "e8a_operator",
        "arithmetic in half precision",
        "wide = torch.promote_types(h.dtype, torch.float32)\n    gap",
        "wide = h.dtype\n    gap",
    ),
    (
        "e8a_operator",
        "a gradient as if nothing were capped",
        "return G - Gv * v,",
        "return G,",
    ),
    (
        "e8a_operator",
        "the gradient of v without its second term",
        "(g * G - Gv * h).sum(0)",
        "(g * G).sum(0)",
    ),
    (
        "e8a_operator",
        "the gradient of tau counts rows that are not capped",
        "Gv.sum()",
        "(G @ v).sum()",
    ),
    (
        "e8a_operator",
        "a copy is capped, not h itself",
        "h[low] = cap_forward(h[low], v, tau)\n    return h",
        "h = torch.where(low[:, None], cap_forward(h, v, tau), h)\n    return h",
    ),
    (
        "e8a_operator",
        "rows above tau are written, too",
        "h[low] = cap_forward(h[low], v, tau)",
        "h.copy_(cap_forward(h, v, tau))",
    ),
    (
        "e8b_kernel",
        "no mask at the end of a row: the first elements of the next row are written",
        "x.dtype), mask=inside)",
        "x.dtype))",
    ),
    (
        "e8b_kernel",
        "rows WIDTH elements apart",
        "tl.program_id(0) * width",
        "tl.program_id(0) * WIDTH",
    ),
    (
        "e8b_kernel",
        "every row is written",
        "if gap > 0:\n",
        "if True:\n        gap = tl.maximum(gap, 0.0)\n",
    ),
    (
        "e8b_kernel",
        "a ceiling",
        "if gap > 0:",
        "if gap < 0:",
    ),
    (
        "e8b_kernel",
        "sums in half precision",
        "tl.sum(wide * direction)",
        "tl.sum((wide * direction).to(x.dtype), dtype=x.dtype)",
    ),
]
