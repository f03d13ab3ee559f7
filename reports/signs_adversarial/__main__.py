"""The command of signs-adversarial: `python -m reports.signs_adversarial`."""

import sys

from reports.signs_adversarial.paper import PAPER
from robustness.util import output

main = PAPER.main

if __name__ == "__main__":
    sys.exit(output.run(main))
