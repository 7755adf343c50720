"""What an experiment showed: metrics with intervals, charts, and one offline HTML file."""

from hyperlax.report.comparison import export_comparison, write_comparison
from hyperlax.report.export import export_charts
from hyperlax.report.html import write_report
from hyperlax.report.leaderboard import leaderboard
from hyperlax.report.metrics import lane_metrics, sample_metrics
from hyperlax.report.selection import selection_bias

__all__ = [
    "export_charts",
    "export_comparison",
    "lane_metrics",
    "leaderboard",
    "sample_metrics",
    "selection_bias",
    "write_comparison",
    "write_report",
]
