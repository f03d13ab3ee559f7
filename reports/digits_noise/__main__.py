"""The command of digits-noise: `python -m reports.digits_noise`."""

import sys

from reports.digits_noise.paper import PAPER
from robustness.util import output

main = PAPER.main

if __name__ == "__main__":
    sys.exit(output.run(main))
