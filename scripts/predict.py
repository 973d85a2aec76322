"""Run the stage 'predict' and whatever it needs that is not there yet; options as for run_optimized_pipeline.py."""

import sys

from pipeline.cli import main

if __name__ == "__main__":
    sys.exit(main("predict"))
