"""Hands this checkout's models and reports to the plugin."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.hookimpl(optionalhook=True)  # so that pytest runs here without the plugin, too
def pytest_robustness_models(config: pytest.Config) -> list[Path]:
    """Give the papers' classifiers."""
    return [Path(__file__).parent / "models"]


@pytest.hookimpl(optionalhook=True)
def pytest_robustness_reports(config: pytest.Config) -> list[Path]:
    """Leave what the last run measured beside the papers' reports."""
    reports = Path(__file__).parent / "reports"
    return [reports / "latest.md", reports / "latest.json"]
