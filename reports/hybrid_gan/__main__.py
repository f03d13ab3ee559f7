"""The command of hybrid-gan: `python -m reports.hybrid_gan`."""

import sys

from reports.hybrid_gan.paper import PAPER
from robustness.util import output

main = PAPER.main

if __name__ == "__main__":
    sys.exit(output.run(main))
