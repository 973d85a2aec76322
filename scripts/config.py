"""Print configs/base.yaml as the sections define it."""

import sys

from pipeline.config import template

if __name__ == "__main__":
    sys.stdout.write(template())
