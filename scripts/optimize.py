"""Run the stage 'optimize', a strategy's search, and ingest where its bars are not there yet; options as for
run_optimized_pipeline.py.
"""

import sys

from pipeline.cli import main

if __name__ == "__main__":
    sys.exit(main("optimize"))
