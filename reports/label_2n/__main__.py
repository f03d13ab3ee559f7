"""The command of label-2n: `python -m reports.label_2n`."""

import sys

from reports.label_2n.paper import PAPER
from robustness.util import output

main = PAPER.main

if __name__ == "__main__":
    sys.exit(output.run(main))
