"""Give a model the quicker twins of attention, prompt reading and sampling."""

from minaxis.fast.attention import SteppedAttention
from minaxis.fast.prefix import prefill_prefixes
from minaxis.fast.sampling import sample
from minaxis.model import Attention, Transformer


def install(model: Transformer) -> None:
    """Make this model fast. Its modules, parameters and hooks stay what they are.

    Only `Attention` itself gets another `attend`: a subclass (Gemma's) keeps its own.
    """
    for module in model.modules():
        if type(module) is Attention:
            module.__class__ = SteppedAttention
    # `generation.decode_steps` looks for these two names.
    setattr(model, "fast_prepare", prefill_prefixes)  # noqa: B010 (a type checker expects a module)
    setattr(model, "fast_sample", sample)  # noqa: B010
