"""Which trained model is in use: models.py list | promote [RUN_OR_KEY] [--model lstm] | pin | rollback | show.

Other options as for run_optimized_pipeline.py. Exit status: 0 done, 2 bad input.
"""

import sys

from pipeline.models import main

if __name__ == "__main__":
    sys.exit(main())
