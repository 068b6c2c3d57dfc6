"""Run a script so that it takes seconds: python small.py SCRIPT ARGUMENTS.

Training stores its state after every step, and replies are few and short where they are measured.
"""

import os
import signal

if __name__ == "__main__":  # as the scripts' first lines
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    print("started", flush=True)

import runpy
import sys
from functools import partial

from minaxis.tiny import questions, scorecard, training
from minaxis.tiny.lab import TinyLab

assert training.train_phase.__kwdefaults__
training.train_phase.__kwdefaults__["save_seconds"] = 0.0
questions.MAX_NEW_TOKENS = TinyLab.max_new_tokens = 3
few = partial(scorecard.run_branched_conversations, each=2)
scorecard.run_branched_conversations = lambda lab, random_each: few(lab, random_each=1)

sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
