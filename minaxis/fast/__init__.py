"""Faster versions of core functions. Each has a plain twin in the core, and a test that both agree.

    file              plain twin                       what it saves
    attention.py      model.Attention.attend           bfloat16 attention on CPUs
    prefix.py         generation.prepare               prompts that begin alike
    conversations.py  generation.prepare               earlier turns, within `remembering`
    sampling.py       generation.sample                sorting the whole vocabulary
    cap_operator.py   activation_cap.cap_reference     memory traffic of the cap
    cap_triton.py     activation_cap.cap_reference     the same on a GPU, as one kernel
    install.py        (gives attention, prefix and sampling to a model; `load(..., fast=True)`
                      calls it)

`python benchmarks/fast.py` measures what each of them saves.
"""
