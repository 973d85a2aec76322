"""The stages that need models: tune, train and predict, each with only the code that it uses behind it.

Training code is imported where it runs, on the worker: importing torch takes longer than a whole run that reuses
everything.
"""

BEST = "best.yaml"  # what tune leaves for train
