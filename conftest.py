"""Hands this checkout's models and reports to the plugin."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


class Checkout:
    """What the plugin asks a project for."""

    @pytest.hookimpl(optionalhook=True)  # so that pytest runs here without the plugin, too
    def pytest_robustness_models(self) -> list[Path]:
        """Return the papers' classifiers."""
        return [HERE / "models"]

    @pytest.hookimpl(optionalhook=True)
    def pytest_robustness_reports(self) -> list[Path]:
        """Leave what the last run measured beside the papers' reports."""
        return [HERE / "reports" / "latest.md", HERE / "reports" / "latest.json"]


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Hand over what is here, unless it is another project that runs these suites (`--pyargs robustness.suites`)."""
    if config.rootpath == HERE:
        config.pluginmanager.register(Checkout(), "robustness-checkout")
