"""The commit and the CI job of a run, from the environment or from git."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

TIMEOUT = 5
"""Seconds that git may take: a report without a commit is better than a run that hangs."""


def revision(folder: Path, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """
    Return the ``commit`` of a folder and the address of the ``ci`` job, as far as they are known.

    GitHub Actions and GitLab CI name both. Elsewhere git names the commit, with ``-dirty`` if tracked files differ.

    >>> revision(Path("/"), {"CI_COMMIT_SHA": "1f0c", "CI_JOB_URL": "https://gitlab.example/-/jobs/7"})
    {'commit': '1f0c', 'ci': 'https://gitlab.example/-/jobs/7'}
    """
    server, repository, run = (environment.get(f"GITHUB_{key}") for key in ("SERVER_URL", "REPOSITORY", "RUN_ID"))
    job = f"{server}/{repository}/actions/runs/{run}" if server and repository and run else None
    commit = environment.get("GITHUB_SHA") or environment.get("CI_COMMIT_SHA") or _described(folder)
    known = {"commit": commit, "ci": job or environment.get("CI_JOB_URL")}
    return {key: value for key, value in known.items() if value}


def _described(folder: Path) -> str | None:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip()
