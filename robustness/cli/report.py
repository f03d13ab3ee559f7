"""`robustness merge`: the reports of all shards of a run become one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robustness.reporting import merge_shards, terminal, writers
from robustness.reporting.html.rebuild import read


def merged(paths: Sequence[Path], outputs: Sequence[Path]) -> tuple[list[str], int]:
    """Write the merged report, and give what to say of it and the exit code; MergeError where nothing is written."""
    for target in outputs:
        writers.check(target)
        if target.resolve() in (path.resolve() for path in paths):
            raise writers.ReportError(f"--output must be another file than the shards, got {target}")
    found = [(str(path), read(path)) for path in paths]
    try:
        report = merge_shards.merge(found)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        named = ", ".join(name for name, _ in found)
        raise merge_shards.MergeError(
            f"{named}: not all are whole reports (edited, or of an older version?): {error!r}"
        ) from error
    code = report["run"]["exit"] = merge_shards.exit_code(report)
    for target in outputs:
        writers.write(report, target)
    return [*terminal.summary(report), *(f"report: {target}" for target in outputs)], code
