"""Give a model the quicker twins of its layers, of prompt reading and of sampling."""

from torch import nn

from minaxis.fast.attention import SteppedAttention
from minaxis.fast.decoding import QuickLinear, QuickNorm, is_quicker
from minaxis.fast.prefix import prefill_prefixes
from minaxis.fast.sampling import sample
from minaxis.model import Attention, RMSNorm, Transformer

TWINS: dict[type[nn.Module], type[nn.Module]] = {
    Attention: SteppedAttention,
    RMSNorm: QuickNorm,
    nn.Linear: QuickLinear,
}


def install(model: Transformer) -> None:
    """Make this model fast. Its modules, parameters and hooks stay what they are.

    Only the very classes of `TWINS` change: a subclass (Gemma's attention) keeps its own code.
    """
    for module in model.modules():
        if type(module) is not nn.Linear or is_quicker(module.weight):
            module.__class__ = TWINS.get(type(module), type(module))
    # `generation.decode_steps` looks for these two names.
    setattr(model, "fast_prepare", prefill_prefixes)  # noqa: B010 (a type checker expects a module)
    setattr(model, "fast_sample", sample)  # noqa: B010
