"""A run that rejects too much stops, and says why."""

from __future__ import annotations

from collections import Counter

import pytest

from pipeline.dataset.totals import Totals
from pipeline.distributed.reject_limit import too_many_rejects


def totals_of(rows: int, **reasons: int) -> Totals:
    return Totals(rows=rows, rejects=sum(reasons.values()), rejects_by_reason=Counter(reasons))


@pytest.mark.parametrize(
    ("totals", "allowed", "stops"),
    [
        (totals_of(0, empty=999), 0.5, False),
        (totals_of(0, empty=1000), 0.5, True),
        (totals_of(500, empty=500), 0.5, False),
        (totals_of(499, empty=501), 0.5, True),
        (totals_of(0, empty=5000), 1.0, False),
        (totals_of(5000), 0.0, False),
        (totals_of(5000, empty=1), 0.0, True),
    ],
)
def test_a_run_is_judged_by_its_first_thousand_clips(totals: Totals, allowed: float, stops: bool):
    assert (too_many_rejects(totals, allowed) is not None) == stops


def test_the_message_names_the_most_common_reasons_and_what_to_do():
    message = too_many_rejects(totals_of(400, not_audio=900, empty=4, truncated=300, silent=5), 0.25)
    assert message is not None
    assert "1,209 of the first 1,609 clips of this run were rejected (75%)" in message
    assert "not_audio 900, truncated 300, silent 5." in message
    assert "raise run.max_reject_fraction" in message
