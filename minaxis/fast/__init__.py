"""Faster versions of core functions. Each has a plain twin in the core, and a test that both agree.

    file              plain twin                       what it saves
    attention.py      model.Attention.attend           bfloat16 attention on CPUs
    prefix.py         generation.prepare               prompts that begin alike
    conversations.py  generation.prepare               earlier turns, within `remembering`
    decoding.py       nn.Linear, model.RMSNorm         products of a few rows on CPUs
    sampling.py       generation.sample                sorting the whole vocabulary
    cap_operator.py   activation_cap.cap_reference     memory traffic of the cap
    cap_triton.py     activation_cap.cap_reference     the same on a GPU, as one kernel
    install.py        (gives attention, prefix, decoding and sampling to a model;
                      `load(..., fast=True)` calls it)

int8.py has no exact twin: it rounds the weights to 8 bits, if `load(..., int8=True)` asks for it.

`python benchmarks/fast.py` measures what each of them saves.
"""
