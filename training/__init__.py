"""Tensors in, model and predictions out; knows no market and no stages."""

import os

# OpenMP's threads spin at barriers by default. Beside other work they then wait for threads that do not run: measured 5
# to 15 times
# slower with two threads than with one. The library reads this once, when torch is first imported in a process.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
