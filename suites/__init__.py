"""What users run: `pytest suites/`, or `pytest --pyargs robustness.suites` without a checkout."""
