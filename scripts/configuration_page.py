"""Write the pages of the configurations from their classes, the one source of keys, types and defaults.

python scripts/configuration_page.py            # rewrites docs/configuration.md and docs/export-configuration.md
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args, get_origin

from pipeline.config import Config
from pipeline.export.config import ExportConfig
from pipeline.yaml_config import Section

DOCS = Path(__file__).parent.parent / "docs"

INTRODUCTION = """\
# Configuration

<!-- Made by scripts/configuration_page.py from pipeline/config.py. -->

A configuration is a YAML file of sections; [configs/](../configs) has examples. Any key can be set on the command line
as `section.key=value`, with a YAML value. Unknown keys, wrong types and impossible values end with exit status 2 and a
message that names the key. Paths are relative to the folder that the command runs in.
"""

EXPORT_INTRODUCTION = """\
# Configuration of an export

<!-- Made by scripts/configuration_page.py from pipeline/export/config.py. -->

The sections of the file for `moss-tok export --config`, and the keys of `--set section.key=value`. OUTPUT, `--to` and
`--out` set `dataset.uri`, `export.to` and `export.uri`. [exports.md](exports.md) describes the formats.
"""

PAGES: dict[Path, tuple[str, type[Section]]] = {
    DOCS / "configuration.md": (INTRODUCTION, Config),
    DOCS / "export-configuration.md": (EXPORT_INTRODUCTION, ExportConfig),
}


def page(path: Path) -> str:
    """A page as Markdown."""
    introduction, root = PAGES[path]
    parts = [introduction]
    for name, field in root.model_fields.items():
        section, about = field.annotation, ""
        if get_origin(section) is tuple:  # a list of sections
            section, about = get_args(section)[0], f" {_one_line(field.description)} Each is a name, or these keys."
        assert isinstance(section, type)
        assert issubclass(section, Section)
        parts.append(f"## {name}\n\n{section.__doc__}{about}\n\n{_table(section)}")
    return "\n".join(parts)


def _table(section: type[Section]) -> str:
    lines = ["| key | allowed | default | what |", "|---|---|---|---|"]
    schema = section.model_json_schema(mode="serialization")
    for key, field in section.model_fields.items():
        default = "required" if field.is_required() else f"`{_yaml(field.get_default(call_default_factory=True))}`"
        allowed = _allowed(schema["properties"][key], schema)
        lines.append(f"| `{key}` | {allowed} | {default} | {_one_line(field.description)} |")
    return "\n".join(lines) + "\n"


def _one_line(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "").strip()


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
        values = rule.get("additionalProperties") or next(iter(rule["patternProperties"].values()))
        return f"names, each with {_allowed(values, schema)}"
    if rule.get("type") == "array":
        return f"list of {_allowed(rule['items'], schema)}"
    bounds = {"minimum": "from", "maximum": "to", "exclusiveMinimum": "above"}
    limits = " ".join(f"{word} {rule[key]}" for key, word in bounds.items() if key in rule)
    return f"{rule['type']} {limits}".strip()


def _yaml(value: object) -> str:
    return "null" if value is None else str(list(value) if isinstance(value, tuple) else value)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(page(path), encoding="utf-8")
