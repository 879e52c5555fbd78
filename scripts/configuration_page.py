"""Write docs/configuration.md from the typed configuration: one source for keys, types, defaults and descriptions.

python scripts/configuration_page.py            # rewrites the page
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined

from pipeline.config import Config, Section

PAGE = Path(__file__).parent.parent / "docs" / "configuration.md"

INTRODUCTION = """\
# Configuration

<!-- Made by scripts/configuration_page.py from pipeline/config.py. -->

A configuration is a YAML file of sections; [configs/](../configs) has examples. Any key can be set on the command line
as `section.key=value`, with a YAML value. Unknown keys, wrong types and impossible values end with exit status 2 and a
message that names the key. Paths are relative to the folder that the command runs in.
"""


def page() -> str:
    """The whole page as Markdown."""
    parts = [INTRODUCTION]
    for name, field in Config.model_fields.items():
        section = field.annotation
        assert isinstance(section, type)
        assert issubclass(section, Section)
        parts.append(f"## {name}\n\n{section.__doc__}\n\n{_table(section)}")
    return "\n".join(parts)


def _table(section: type[Section]) -> str:
    lines = ["| key | allowed | default | what |", "|---|---|---|---|"]
    schema = section.model_json_schema(mode="serialization")
    for key, field in section.model_fields.items():
        default = "required" if field.default is PydanticUndefined else f"`{_yaml(field.default)}`"
        description = re.sub(r"\s+", " ", field.description or "").strip()
        lines.append(f"| `{key}` | {_allowed(schema['properties'][key], schema)} | {default} | {description} |")
    return "\n".join(lines) + "\n"


def _allowed(rule: dict[str, Any], schema: dict[str, Any]) -> str:
    if choices := rule.get("anyOf"):
        return " or ".join(_allowed(choice, schema) for choice in choices)
    if reference := rule.get("$ref"):
        keys = schema["$defs"][reference.rpartition("/")[2]]["properties"]
        return ", ".join(f"`{key}` ({_allowed(rule, schema)})" for key, rule in keys.items())
    if isinstance(values := rule.get("enum"), list):
        return ", ".join(f"`{value}`" for value in values)
    if "const" in rule:
        return f"`{rule['const']}`"
    if rule.get("type") == "object":
        return "names of splits, each with a list of URIs"
    bounds = {"minimum": "from", "maximum": "to", "exclusiveMinimum": "above"}
    limits = " ".join(f"{word} {rule[key]}" for key, word in bounds.items() if key in rule)
    return f"{rule['type']} {limits}".strip()


def _yaml(value: object) -> str:
    return "null" if value is None else str(value)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
