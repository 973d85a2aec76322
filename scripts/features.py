"""Run the stage 'features' and whatever it needs that is not there yet, or with --explain say what it would do; options
as for run_optimized_pipeline.py.
"""

import sys

from pipeline.features.explain import main

if __name__ == "__main__":
    sys.exit(main())
