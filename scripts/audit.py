"""Do columns see the future, and are they the same however they are run? audit.py features [--set S] [--checks C1,C2].
Do scores of trained models see the future, or other symbols? audit.py scores [--checks C1,C2].
Do training, validation and test share anything? audit.py split [--split.kind kfold] [--json].
Do strategies see the future? audit.py strategies [NAME ...] [--optimize.interval 15m] [--draws 20].

Options as for run_optimized_pipeline.py, and those that --help names first. Exit status: 0 clean, 1 found something,
3 cannot judge, 2 bad input.
"""

import sys

from pipeline.audit.command import main

if __name__ == "__main__":
    sys.exit(main())
