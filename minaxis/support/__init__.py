"""What the other files and the scripts need, and what a reader can skip.

arguments.py       the scripts' common arguments, and how a script ends
files.py           files are written whole or not at all, and reading one never runs code
schema.py          checks what a file contains, before anything is made of it
checks.py          numbers are finite, and directions have a length
rollout_store.py   stores rollouts, in memory or in one file for each role
progress.py        a progress line with rate and time left
meter.py           projections in a terminal: colours and bars
stats.py           rates, intervals, slopes, and a cross-validated regression
moved.py           the error on an import of an old name says where it is now
version.py         the version
"""
