"""The summary of a GitHub Actions job: appended by runs, merges and comparisons, and never larger than GitHub takes."""

from pathlib import Path

import pytest
from report_runs import CLEAN, NORMAL, load_card_of, report

from robustness.cli import main
from robustness.reporting import job_summary
from robustness.reporting.markdown_latex import markdown_page
from robustness.reporting.report_file import ReportError

GITHUB = Path("somewhere/github")


@pytest.fixture
def file(monkeypatch, tmp_path):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "step_summary_1a2b"))
    return tmp_path / "step_summary_1a2b"


@pytest.fixture
def document(tmp_path):
    return report(load_card_of(tmp_path), {"clean": CLEAN, "normal": NORMAL})


def test_a_report_is_appended(file, document):
    """Catches: the summary of an earlier step that is overwritten; a suffix asked of GitHub's own file."""
    file.write_text("earlier\n")
    job_summary.check(file)
    assert job_summary.write(document, GITHUB) == "appended to the job's summary"
    job_summary.write(document, file)
    page = markdown_page(document)
    assert file.read_text(encoding="utf-8") == f"earlier\n{page}\n{page}\n"


def test_a_page_that_is_too_long_is_a_short_one(file, document, monkeypatch):
    """Catches: a summary that GitHub does not show at all because a step wrote more than it takes."""
    monkeypatch.setattr(job_summary, "LIMIT", len(markdown_page(document).encode()) + 600)
    file.write_text("x" * 601)
    job_summary.write(document, GITHUB)
    assert "tables are too long for this page" in file.read_text(encoding="utf-8")
    assert "| 0.1 |" not in file.read_text(encoding="utf-8")
    assert file.stat().st_size < job_summary.LIMIT
    file.write_text("x" * job_summary.LIMIT)
    assert "it is full" in job_summary.write(document, GITHUB)
    assert file.stat().st_size == job_summary.LIMIT


def test_elsewhere_nothing_is_written(monkeypatch, document, tmp_path):
    """Catches: a file `github` in the working folder; a run that fails on a laptop because of CI's option."""
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.chdir(tmp_path)
    job_summary.check(GITHUB)
    before = {*tmp_path.iterdir()}
    assert "no job of GitHub Actions" in job_summary.write(document, Path("github"))
    assert {*tmp_path.iterdir()} == before


def test_a_summary_that_cannot_be_written_is_an_error(monkeypatch, document, tmp_path):
    """Catches: a traceback, or a green run whose report is nowhere."""
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    with pytest.raises(ReportError, match="could not be written"):
        job_summary.write(document, GITHUB)


def test_a_run_and_a_comparison_append(project, file, capsys):
    """Catches: the option refused before the run for want of a suffix; a comment's format where a page is meant."""
    run = project.fill().run("suites", "--robustness-report=github")
    assert run.ret == 0
    assert "report: appended to the job's summary" in run.out
    assert file.read_text(encoding="utf-8").startswith("# Robustness report: GO: tiny\n")
    file.unlink()
    assert main.main(["compare", "report.json", "report.json", "-o", "github"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "appended to the job's summary"
    assert "✅ Robustness: not worse" in file.read_text(encoding="utf-8")
