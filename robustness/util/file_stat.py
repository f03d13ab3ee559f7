"""Whether a file has changed since its last inspection, by git's rule."""

from __future__ import annotations

import os
from collections.abc import Sequence

SLACK = 2 * 10**9
"""Nanoseconds: some file systems have a resolution of two seconds."""


def file_stat(path: str) -> list[int]:
    """Return a file's size, times of change and inode; nothing if there is none."""
    # Without Path, because thousands of objects would be created.
    try:
        stat = os.stat(path)  # noqa: PTH116
    except OSError:
        return []
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def is_settled(stat: Sequence[int], taken: int) -> bool:
    """
    Return whether a file with this stat, taken at that time (nanoseconds), was last written long enough before.

    File systems count times in steps: a file that is rewritten right after an inspection may have the same times.
    """
    return len(stat) == 4 and max(stat[1], stat[2]) < taken - SLACK
