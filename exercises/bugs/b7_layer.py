"""Bug hunt 7: where on the axis does the ghost's reply lie, layer by layer?

The stream is kept as many libraries keep it: in one list, from the embedding to the last block.
"""

import torch

import minaxis as mx


def measure(model: mx.Transformer, tokenizer: mx.Tokenizer) -> list[float]:
    """The projection of the ghost's reply at each layer."""
    unit = mx.Axis.load(mx.roles.ASSETS / "tiny-axis.pt").unit()
    messages = [
        {"role": "system", "content": "You are the ghost."},
        {"role": "user", "content": "I miss my brother."},
    ]
    prompt = mx.encode_chat(tokenizer, messages)
    (reply,) = mx.generate(model, tokenizer, [prompt])

    hidden_states: list[torch.Tensor] = []
    modules = [model.model.embed_tokens, *model.model.layers]
    handles = [
        module.register_forward_hook(lambda module, args, output: hidden_states.append(output))
        for module in modules
    ]
    try:
        with torch.no_grad():
            model(torch.tensor([prompt + reply]))
    finally:
        for handle in handles:
            handle.remove()
    means = [h[0, len(prompt) :].mean(0) for h in hidden_states]
    return [(means[layer] @ unit[layer]).item() for layer in range(len(unit))]


if __name__ == "__main__":
    loaded = mx.load("tiny", device="cpu")
    for layer, projection in enumerate(measure(*loaded)):
        print(f"layer {layer}   {projection:6.2f}")
