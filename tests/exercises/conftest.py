import sys
from pathlib import Path

# The exercises are in no installed package. (exercises/ has an __init__.py, so it is found before
# this folder, which has none.)
sys.path.append(str(Path(__file__).parents[2]))
