"""Reports of a comparison: one HTML page, Markdown, JSON and CSV. Needs the extra ``report``."""

from rankseg_plugins.report.writing import write_report

__all__ = ["write_report"]
