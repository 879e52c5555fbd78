"""Whether an output is what was written, and whether its sources still give what it says.

    outline    the record, the plan, `_SUCCESS`, the card, and that nothing lies where readers would take it for data
    shards     each manifest against the plan, each object against its manifest
    figures    totals.json and the card against the sum of the manifests
    rows       what the rows of a data object say, against each other and against the model
    again      a sample of clips, read and encoded again

Everything looks and nothing changes what it looks at. A difference never ends the work: it goes into the report.
"""

from pipeline.verify.everything import verify
from pipeline.verify.report import CHECKS, Difference, Report

__all__ = ["CHECKS", "Difference", "Report", "verify"]
