"""Several processes, which torchrun starts, on one machine or on many.

tensor_parallel.py   one model on several ranks, for models larger than one GPU
"""
