"""Several processes, which torchrun starts, on one machine or on many.

ranks.py             who I am, my share of the work, and what the others have
tensor_parallel.py   one model on several ranks, for models larger than one GPU
"""
