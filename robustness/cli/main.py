"""The command `robustness`."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence

from robustness.cli import common, files, models, results
from robustness.errors import RobustnessError
from robustness.util import output

# Each command imports what it needs: help does not import NumPy, and a list of evidence does not import torch.

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0 for success, 1 for a failure, 2 for an error explained by one sentence."""
    return output.run(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    from robustness.cli.parser import parser
    from robustness.cli.run import split

    words, behind = split(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(words)
    options.pytest = behind
    if arguments is not None or options.command == "run":  # which becomes pytest, and that has its run supervised
        return _done(options)
    from robustness.util import supervisor

    tell = supervisor.supervised()
    code = output.run(lambda: _done(options))  # its end is reported after all output is written
    tell(str(code))
    return code


def _done(options: Namespace) -> int:
    try:
        with common.copied(getattr(options, "copy", None)):
            return COMMANDS[options.command](options)
    except RobustnessError as error:
        common.say(str(error))
        return common.ERROR
    except BrokenPipeError:
        raise
    except OSError as error:
        named = "" if error.filename is None else f"{error.filename}: "
        common.say(f"{named}{error.strerror or error}")
        return common.ERROR
    except KeyboardInterrupt:
        root = common.store_of(options).root
        common.say(f"interrupted; finished work is stored in {root}, run the same command again to continue")
        return INTERRUPTED


COMMANDS: dict[str, Callable[[Namespace], int]] = {
    "run": models.run,
    "sweep": models.sweep,
    "plan": models.plan,
    "train": models.train,
    "update-thresholds": models.update_thresholds,
    "transfer": models.transfer,
    "corruption-error": models.corruption_error,
    "report": results.report,
    "merge": results.merge,
    "verify": results.verify,
    "check-cards": results.check_cards,
    "migrate": results.migrate,
    "show-flip": models.show_flip,
    "init": models.init,
    "check": models.check,
    "profiles": models.profiles,
    "data mnist": files.mnist,
    "baseline accept": results.accept,
    "compare": results.compare,
    "mutate": results.mutate,
    "evidence list": files.listed,
    "evidence show": files.show,
    "evidence prune": files.prune,
}


if __name__ == "__main__":
    sys.exit(main())
