"""From a race's result to a page, a terminal, JSON and a picture."""

from __future__ import annotations

from steepest.reporting.html import write_html
from steepest.reporting.picture import write_summary_svg
from steepest.reporting.several import print_several, several_json, write_several_html
from steepest.reporting.terminal import print_result, result_json

__all__ = [
    "print_result",
    "print_several",
    "result_json",
    "several_json",
    "write_html",
    "write_several_html",
    "write_summary_svg",
]
