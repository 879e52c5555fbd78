"""Checks whether an output is what was written, and whether its sources still give the same codes.

    metadata_checks   the record, the plan, `_SUCCESS`, the card, and that no other object lies in the folders of data
    shard_checks      each manifest against the plan, each object against its manifest
    row_checks        the rows of a data object, against each other and against the model
    totals_checks     totals.json and the card against the sum of the manifests
    reencode          a sample of clips, read and encoded again

A check changes nothing, and a difference never stops the others: it becomes one of the findings. `repair` is the module
that changes an output; `duplicates` lists equal clips.
"""

from pipeline.verify.findings import CHECKS, Difference, Findings
from pipeline.verify.verify import verify

__all__ = ["CHECKS", "Difference", "Findings", "verify"]
