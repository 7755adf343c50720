"""Reports of finished and running experiments: metrics with intervals, charts, and offline HTML pages."""

from hyperlax.report.comparison import check_published, comparable, export_comparison, write_comparison
from hyperlax.report.complexity import sample_complexities
from hyperlax.report.export import export_charts
from hyperlax.report.html import write_report
from hyperlax.report.importance import importance_table
from hyperlax.report.leaderboard import leaderboard
from hyperlax.report.metrics import lane_metrics, sample_metrics
from hyperlax.report.options import Options
from hyperlax.report.published import read_published
from hyperlax.report.scores import lane_scores, measured_by, sample_scores
from hyperlax.report.selection import selection_bias
from hyperlax.report.sensitivity import sobol_table
from hyperlax.report.tuning import sensitivity_table

__all__ = [
    "Options",
    "check_published",
    "comparable",
    "export_charts",
    "export_comparison",
    "importance_table",
    "lane_metrics",
    "lane_scores",
    "leaderboard",
    "measured_by",
    "read_published",
    "sample_complexities",
    "sample_metrics",
    "sample_scores",
    "selection_bias",
    "sensitivity_table",
    "sobol_table",
    "write_comparison",
    "write_report",
]
