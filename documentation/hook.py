"""Pages that are generated from the program whenever the documentation is built."""

from __future__ import annotations

import reference_card
import reference_commands
import reference_metrics
import reference_options
import reference_report
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PAGES = {
    "reference/commands.md": reference_commands.page,
    "reference/options.md": reference_options.page,
    "reference/card.md": reference_card.page,
    "reference/metrics.md": reference_metrics.page,
    "reference/report.md": reference_report.page,
    "reference/report.schema.json": reference_report.schema_text,
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, and the JSON Schema of the report, to those that lie in `docs/`."""
    for path, page in PAGES.items():
        files.append(File.generated(config, path, content=page()))
    return files
