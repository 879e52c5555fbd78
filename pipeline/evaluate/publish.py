"""What an evaluation ends with: results.json, table.md and index.html."""

from __future__ import annotations

from pipeline import storage
from pipeline.evaluate.evaluation import Evaluation, read_results
from pipeline.evaluate.page import render
from pipeline.evaluate.summary import Summary
from pipeline.evaluate.table import markdown, results_json, table_rows
from pipeline.evaluate.worst import worst_clips

WORST_CLIPS = 3


def publish_results(evaluation: Evaluation, summary: Summary) -> str:
    """Write the results; returns what to print."""
    work, config = evaluation.work, evaluation.config
    rows = table_rows(summary, work.subjects, config.evaluate.published)
    text = markdown(summary, rows, work.metrics)
    table = read_results(evaluation)
    heard = worst_clips(table, evaluation.specs, work, work.metrics[0], WORST_CLIPS)
    title = ", ".join(subject.label for subject in work.subjects)
    storage.publish(storage.join(evaluation.root, "results.json"), results_json(summary, rows, work.metrics))
    storage.publish(storage.join(evaluation.root, "table.md"), text.encode())
    page = render(title, summary, rows, table, work.metrics, heard)
    storage.publish(storage.join(evaluation.root, "index.html"), page)
    return f"{text}\n{evaluation.root}: data/, results.json, table.md, and index.html to open in a browser"
