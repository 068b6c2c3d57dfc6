"""The capping operator as one GPU kernel, written by hand.

    h <- h + v * relu(tau - <h, v>)        row by row: a dot product, a clamp, an update

The arithmetic is cheap, four operations an element. Moving h between the GPU's memory and its
processors is what costs time. In plain PyTorch each step is a kernel of its own, which reads again
what the step before has stored. Below, each `#` is one row of D elements that is moved:

                          reads      writes
    p = h @ v             #                       row of h -> one number
    gap = relu(tau - p)                           numbers only
    u = outer(gap, v)                #            a whole row, stored only to be fetched again
    y = h + u             ##         #
                          3 rows     2 rows       = 5 D elements

Here a row is fetched once into registers, and stays there while its dot product is taken and
while it is updated:

    memory       registers of one program                 memory
    h[row] ----> x --- sum(x * v) ---> gap --- > 0? yes --> y = x + gap v ----> out[row]
             #   |                                          ^                #
                 +------------------------------------------+
                                                      no -> in place: nothing is stored at all

                          in place                        out of place
    row capped            1 row read, 1 row written       1 read, 1 written     = 2 D elements
    row above tau         1 row read                      1 read, 1 written

v is read by every program, but it is small: it comes from the cache. A program therefore takes
several rows one after the other, and fetches v once for all of them.
"""

import triton
import triton.language as tl
from torch import Tensor


@triton.jit(do_not_specialize=["rows"])  # one kernel for every length of a prompt
def cap_kernel(  # type: ignore[no-untyped-def]  # Triton compiles it: no Python types
    h, out, v, tau, rows, width,
    TAU_IS_POINTER: tl.constexpr,  # a tensor, or a plain number
    IN_PLACE: tl.constexpr,
    ROWS: tl.constexpr,  # rows that a program holds at a time
    STEPS: tl.constexpr,  # how many times it does so
    WIDTH: tl.constexpr,  # the width, rounded up to a power of two
):  # fmt: skip
    column = tl.arange(0, WIDTH)
    inside = column < width
    # Beyond the last column everything is 0 and adds nothing to the dot product.
    v_row = tl.load(v + column, mask=inside, other=0.0).to(tl.float32)  # (WIDTH,)
    floor = tl.load(tau).to(tl.float32) if TAU_IS_POINTER else tau
    first = tl.program_id(0) * (ROWS * STEPS)
    for step in range(STEPS):
        row = first + step * ROWS + tl.arange(0, ROWS)
        # 64 bits: 65,536 rows of 32,768 elements already overflow 32.
        at = row.to(tl.int64)[:, None] * width + column[None, :]  # (ROWS, WIDTH)
        mask = (row < rows)[:, None] & inside[None, :]
        x = tl.load(h + at, mask=mask, other=0.0)  # the one read
        wide = x.to(tl.float32)  # sums and products in float32, whatever the storage
        gap = floor - tl.sum(wide * v_row[None, :], axis=1)  # (ROWS,)
        # A NaN compares false, and no finite push helps an infinite row: both stay as they are.
        low = ((gap > 0) & (gap < float("inf")))[:, None]
        y = (wide + gap[:, None] * v_row[None, :]).to(x.dtype)
        # The one write. In place, rows that are not low are masked out: no byte moves for them.
        if IN_PLACE:
            tl.store(out + at, y, mask=mask & low)
        else:
            tl.store(out + at, tl.where(low, y, x), mask=mask)


def cap_rows(h: Tensor, out: Tensor, v: Tensor, tau: Tensor | float) -> None:
    """Launch it on contiguous rows h (N, D), N > 0; `out` may be h. Nothing waits for the GPU.

    Args:
        v: (D,) unit vector on the same device, of any floating dtype.
        tau: a number is passed as an argument of the launch. A 0-dimensional tensor on the same
            device is read by the kernel, so a replayed CUDA graph sees its new value.
    """
    rows, width = h.shape
    wide = triton.next_power_of_2(width)
    # Narrow rows share a program, up to 4,096 elements: 16 for each of its 256 threads, which are
    # two 16-byte reads in bfloat16.
    together = max(1, 4096 // wide)
    # With many rows, each program takes four turns, and v is fetched a quarter as often. With few
    # rows it takes one turn, to keep the whole GPU busy.
    steps = 4 if rows >= 4096 * together else 1
    cap_kernel[(triton.cdiv(rows, together * steps),)](
        h, out, v.contiguous(), tau, rows, width,
        TAU_IS_POINTER=isinstance(tau, Tensor),
        IN_PLACE=out.data_ptr() == h.data_ptr(),
        ROWS=together,
        STEPS=steps,
        WIDTH=wide,
        num_warps=16 if wide > 4096 else 8,
    )  # fmt: skip
