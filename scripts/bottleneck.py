"""How does the time of a stage grow with its input, and what would 1,000 symbols take? bottleneck.py features [--json].

Options as for run_optimized_pipeline.py, and those that --help names first. Exit status: 0 done, 2 bad input.
"""

import sys

if __name__ == "bottleneck":
    # pandas imports an optional package of this name, and the folder of the command that runs comes first.
    raise ImportError("bottleneck.py is a command")

if __name__ == "__main__":
    from pipeline.bottleneck import main

    sys.exit(main())
