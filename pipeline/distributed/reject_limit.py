"""Stops a run that rejects so many clips that the configuration or the input as a whole must be wrong."""

from __future__ import annotations

from pipeline.dataset.totals import Totals

CLIPS_TO_JUDGE_BY = 1_000
REASONS_NAMED = 3


def too_many_rejects(totals: Totals, allowed: float) -> str | None:
    """Why the run should stop, and what to do; None if at most the fraction `allowed` of its clips was rejected."""
    clips = totals.rows + totals.rejects
    if clips < CLIPS_TO_JUDGE_BY or totals.rejects <= allowed * clips:
        return None
    common = ", ".join(f"{reason} {count:,}" for reason, count in totals.rejects_by_reason.most_common(REASONS_NAMED))
    return (
        f"{totals.rejects:,} of the first {clips:,} clips of this run were rejected ({totals.rejects / clips:.0%}), "
        f"and run.max_reject_fraction is {allowed:g}. Most common: {common}. rejects/ says what is wrong with each.\n"
        "If you expect this, raise run.max_reject_fraction and give the same command again: it continues. If the input "
        "or the configuration is wrong, correct it and choose another output.uri."
    )
