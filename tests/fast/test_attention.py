import pytest
import torch

from minaxis import Config
from minaxis.fast.attention import SteppedAttention
from minaxis.model import attention_mask


@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("padding", [None, torch.tensor([0, 5])])
def test_attention_in_steps_equals_the_plain_attention(queries, padding):
    config = Config(8, 24, 8, 1, 6, 2, 16)
    attention, g = SteppedAttention(config, 0), torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, n, t, 16, generator=g) for n, t in ((6, queries), (2, 9), (2, 9)))
    mask = attention_mask(queries, 9, padding, q)
    expected = attention.attend(q, k, v, mask)  # float32: PyTorch's
    torch.testing.assert_close(attention.attend_in_steps(q, k, v, mask), expected)
    low = [x if x is None else x.bfloat16() for x in (q, k, v, mask)]
    if queries > 1:
        assert (attention.attend(*low) == attention.attend_in_steps(*low)).all()
    else:  # two rows: few enough for the kernel
        assert (attention.attend(*low) == attention.attend_by_key_head(*low)).all()
        in_steps = attention.attend_in_steps(*low)
        assert (in_steps - expected).abs().max() < 0.02 * expected.abs().max()
    assert (attention.attend(*low) - expected).abs().max() < 0.02 * expected.abs().max()
