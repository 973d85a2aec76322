"""Market data into the lake: ingest.py [plan | run | verify | repair | audit --against SOURCE]; no verb is run.

Options as for run_optimized_pipeline.py; `--since last` is short for --ingest.since last.
"""

import sys

from pipeline.verbs import main

if __name__ == "__main__":
    sys.exit(main())
