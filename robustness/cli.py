"""The command `robustness`: fill the store ahead of the suites, train, renew, get data, look at evidence."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence

from robustness import output
from robustness.commands import given, over_files, over_models, over_results
from robustness.errors import RobustnessError

# Each command imports what it needs: help does not wait for NumPy, nor a list of evidence for torch.

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 if all is well, 1 if something is red or errored, 2 for what one sentence tells."""
    return output.run(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    from robustness.commands.arguments import parser
    from robustness.commands.run import split

    words, behind = split(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(words)
    options.pytest = behind
    if arguments is not None or options.command == "run":  # which becomes pytest, and that has its run supervised
        return _done(options)
    from robustness import supervising

    tell = supervising.supervised()
    code = output.run(lambda: _done(options))  # its end is told when all of it is written
    tell(str(code))
    return code


def _done(options: Namespace) -> int:
    try:
        return COMMANDS[options.command](options)
    except RobustnessError as error:
        given.say(str(error))
        return given.ERROR
    except BrokenPipeError:
        raise
    except OSError as error:
        named = "" if error.filename is None else f"{error.filename}: "
        given.say(f"{named}{error.strerror or error}")
        return given.ERROR
    except KeyboardInterrupt:
        kept = given.store_of(options).root
        given.say(f"interrupted; what was finished is kept in {kept}, and the same command goes on from there")
        return INTERRUPTED


COMMANDS: dict[str, Callable[[Namespace], int]] = {
    "run": over_models.run,
    "sweep": over_models.sweep,
    "plan": over_models.plan,
    "train": over_models.train,
    "renew": over_models.renew,
    "transfer": over_models.transfer,
    "report": over_results.report,
    "merge": over_results.merge,
    "annotate": over_results.annotate,
    "check-cards": over_results.check_cards,
    "replay": over_models.replay,
    "init": over_models.init,
    "check": over_models.check,
    "profiles": over_models.profiles,
    "data mnist": over_files.mnist,
    "data crops": over_files.crops,
    "baseline accept": over_results.accept,
    "compare": over_results.compare,
    "mutate": over_results.mutate,
    "evidence list": over_files.listed,
    "evidence show": over_files.show,
    "evidence prune": over_files.prune,
    "evidence export": over_files.export,
    "evidence import": over_files.bring,
}


if __name__ == "__main__":
    sys.exit(main())
