"""Run the whole pipeline: market data in, report out. `--help` lists every key, `--dry-run` says what would run."""

import sys

from pipeline.cli import main

if __name__ == "__main__":
    sys.exit(main("report"))
