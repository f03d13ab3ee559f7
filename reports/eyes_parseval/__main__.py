"""The command of eyes-parseval: `python -m reports.eyes_parseval`."""

import sys

from reports.eyes_parseval.paper import PAPER
from robustness.util import output

main = PAPER.main

if __name__ == "__main__":
    sys.exit(output.run(main))
