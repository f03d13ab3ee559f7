"""The hooks with which a project names its models and reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest


@pytest.hookspec
def pytest_robustness_models(config: pytest.Config) -> Sequence[Path]:  # type: ignore[empty-body]
    """
    Return the model cards of this project, or folders that hold them.

    Of these a plain run takes the ones on embedded data; the others run when `--robustness-model` names them::

        def pytest_robustness_models(config):
            return [config.rootpath / "models"]
    """


@pytest.hookspec
def pytest_robustness_reports(config: pytest.Config) -> Sequence[Path]:  # type: ignore[empty-body]
    """
    Return the files that a run's report is written to where `--robustness-report` names none; the suffix is the form::

        def pytest_robustness_reports(config):
            return [config.rootpath / "reports" / "latest.md"]
    """
