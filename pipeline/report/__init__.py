"""The report: one self-contained HTML page that shows what an output holds."""
