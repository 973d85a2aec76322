"""From the directories of all stages to what a person reads: numbers as JSON, one picture, one offline page."""

from .section import ReportError, ReportSection
from .stage import report

__all__ = ["ReportError", "ReportSection", "report"]
