"""Write the tables of columns in docs/output.md from schemas/, the one source of names, types and descriptions.

python scripts/column_tables.py            # rewrites the tables between their marks
"""

from __future__ import annotations

import re
from pathlib import Path

from pipeline import schema
from pipeline.dataset.card import column_rows

PAGE = Path(__file__).parent.parent / "docs" / "output.md"
CODEBOOK_SIZE = 1024  # of the released model


def with_tables(page: str) -> str:
    """The page with every table as the definitions have it. Raises ValueError if one has no place on the page."""
    codes = [*schema.definition(schema.CODES)["columns"], schema.layer_definition(0, CODEBOOK_SIZE)]
    tables = {schema.CODES: codes, "signals": schema.signal_definitions(schema.definition(schema.CODES)["signals"])}
    tables |= {name: schema.definition(name)["columns"] for name in (schema.REJECTS, schema.MANIFEST)}
    for name, columns in tables.items():
        start, end = f"<!-- columns of {name}, made by scripts/column_tables.py -->", f"<!-- end of {name} -->"
        if start not in page or end not in page:
            raise ValueError(f"{PAGE}: no marks {start} and {end}")
        before, rest = page.split(start)
        page = f"{before}{start}\n\n{column_rows(columns)}\n\n{end}{rest.split(end)[1]}"
    return re.sub(r"\n{3,}", "\n\n", page)


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
