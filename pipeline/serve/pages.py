"""The pages as HTML. The report's parts are used where it has them."""

from __future__ import annotations

from typing import Any

from pipeline.dataset.dataset import Output
from pipeline.monitoring.status import SHOWN_FAILURES
from pipeline.pages.document import render_page
from pipeline.pages.numerals import count, quantity, share, shown
from pipeline.pages.plots import meter
from pipeline.report.content import describe_example, describe_rejects, describe_work
from pipeline.report.views import ClipView
from pipeline.serve.watch import Look

ROOM = "pipeline.serve"


def frame_page(output: Output, look: Look, every: float) -> bytes:
    """The page at the root, which asks for `now_page` every so many seconds."""
    return render_page(ROOM, "frame.html", **_title(output), **_now(look), every=every)


def now_page(look: Look) -> bytes:
    """The part of the page that changes: a fragment of HTML."""
    return render_page(ROOM, "now.html", **_now(look))


def clip_page(output: Output, clip: ClipView) -> bytes:
    """One row, to look at and listen to."""
    return render_page(ROOM, "clip.html", **_title(output), clip=clip)


def _title(output: Output) -> dict[str, Any]:
    root = output.layout.root
    return {"name": shown(root.rpartition("/")[2] or root, 80), "root": shown(root)}


def _now(look: Look) -> dict[str, Any]:
    status, history = look.status, look.history
    planned, committed = len(status.output.specs), status.totals.shards
    failures = {shard: reason for run in status.last for shard, reason in run.failures.items()}
    return {
        "complete": status.complete,
        "alive": bool(status.alive),
        "percent": share(committed, planned),
        "meter": meter(committed, planned),
        "lines": {name: shown(value) for name, value in status.lines().items()},
        "failures": [
            (shown(shard, 60), shown(reason, 400)) for shard, reason in list(failures.items())[:SHOWN_FAILURES]
        ]
        if not status.complete
        else [],
        "work": describe_work(history) if history.totals.shards else None,
        "rejects": describe_rejects(history.totals, {}),
        "latest_rejects": [describe_example(example) for example in look.rejects],
        "latest_clips": [
            {
                "clip_id": clip.clip_id,
                "key": shown(clip.key, 80),
                "duration": quantity(clip.duration, "s"),
                "text": shown(clip.text or "", 120),
            }
            for clip in look.clips
        ],
        "clips": count(history.totals.rows),
    }
