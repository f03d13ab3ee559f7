"""`robustness merge`: merge the reports of all shards of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robustness.reporting import job_summary, merge_shards, terminal
from robustness.reporting.report_file import ReportError, read_report


def merged(paths: Sequence[Path], outputs: Sequence[Path]) -> tuple[list[str], int]:
    """Write the merged report; return lines to print and the exit code. MergeError if nothing is written."""
    for target in outputs:
        job_summary.check(target)
        if target.resolve() in (path.resolve() for path in paths):
            raise ReportError(f"--output must be another file than the shards, got {target}")
    report = merge_shards.merge([(str(path), read_report(path)) for path in paths])
    code = report.run.exit = merge_shards.exit_code(report)
    written = [f"report: {job_summary.write(report, target) or target}" for target in outputs]
    return [*terminal.summary(report), *written], code
