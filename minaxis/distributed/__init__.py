"""Several processes, which torchrun starts, on one machine or on many.

ranks.py             how they share out the work, and what they tell each other
tensor_parallel.py   one model on several ranks, for models larger than one GPU
"""
