"""Typed YAML: read strictly, overridden by key, and validated as frozen sections.

An unknown key, a wrong type or an impossible value is a ConfigError that names the path of the key and what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from yaml.constructor import ConstructorError

from pipeline.redaction import redact


class ConfigError(ValueError):
    """The configuration cannot be used. The message names each key and the values that it allows.

    Secrets of URIs are left out of it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(redact(message))


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        validate_default=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )
    renamed: ClassVar[Mapping[str, str]] = {}
    """For the class of a whole configuration: keys of earlier versions, each with the key that replaced it."""


def as_tuple(value: Any) -> Any:
    """For a BeforeValidator: YAML has lists where a frozen section has tuples."""
    return tuple(value) if isinstance(value, list) else value


def one_or_several(value: Any) -> Any:
    """For a BeforeValidator: one string stands for a list of it."""
    if not isinstance(value, str | list | tuple):
        raise ValueError("give one, or a list of them")
    return (value,) if isinstance(value, str) else tuple(value)


def read_document(path: str | Path | None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The sections of a YAML file, or none without a path, with the overrides applied. Raises ConfigError."""
    try:
        document = {} if path is None else yaml.load(Path(path).read_text(encoding="utf-8"), _StrictLoader)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the configuration: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not a YAML file: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected sections with keys, such as output.uri, found {_describe(document)}")
    for override in overrides:
        _apply(document, override)
    return document


Root = TypeVar("Root", bound=Section)


def validate(root: type[Root], document: Mapping[str, Any], where: str) -> Root:
    """The document as a configuration of the given class. Raises ConfigError with a line for each fault."""
    try:
        return root.model_validate(document)
    except ValidationError as error:
        raise ConfigError(f"{where}: cannot be used:\n{_faults(error.errors(), root)}") from error


class _StrictLoader(yaml.SafeLoader):
    """YAML that runs no code, and in which two equal keys are an error; PyYAML would take the last one in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        if twice := next((key for key, _ in node.value if names.count(key.value) > 1), None):
            raise ConstructorError(None, None, f"the key {twice.value!r} is there twice", twice.start_mark)
        return cast("dict[Any, Any]", super().construct_mapping(node, deep))


def _apply(document: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    keys = path.split(".")
    no_override = ConfigError(f"{override!r}: an override is section.key=value, such as model.dtype=bfloat16")
    if not equals or not all(keys):
        raise no_override
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{override!r}: the value is not YAML: {error}") from error
    if len(keys) < 2 and not isinstance(value, list):  # a list of sections, such as models
        raise no_override
    node = document
    for key in keys[:-1]:
        if node.get(key) is None:
            node[key] = {}
        child = node[key]
        if not isinstance(child, dict):
            raise ConfigError(f"{override!r}: {key} holds {_describe(child)}, so nothing can be set inside it")
        node = child
    node[keys[-1]] = value


def _faults(details: Sequence[ErrorDetails], root: type[Section]) -> str:
    """A line for each key. For a value of several allowed types, the faults of all types stand in one line."""
    lines: dict[str, list[str]] = {}
    for detail in details:
        # The type's name is then at the end of the path.
        path = [str(part) for part in detail["loc"] if not str(part).startswith(("constrained-", "literal["))]
        faults = lines.setdefault(".".join(path), [])
        if (fault := _fault(detail, path, root)) not in faults:
            faults.append(fault)
    return "\n".join(f"  {where and where + ': '}{'; or '.join(faults)}" for where, faults in lines.items())


def _fault(detail: ErrorDetails, path: Sequence[str], root: type[Section]) -> str:
    if detail["type"] == "extra_forbidden":
        if new := root.renamed.get(".".join(path)):
            return f"this key is now {new}"
        section = _section_at(root, path[:-1])
        return f"unknown key; allowed here: {_names(section)}" if section else "unknown key"
    if detail["type"] == "missing":
        return "required and missing"
    message = detail["msg"].removeprefix("Value error, ")
    if not path:
        return message  # a rule of the whole document names its keys
    return f"{message}, but found {_describe(detail['input'])}"


def _section_at(section: type[BaseModel], path: Sequence[str]) -> type[BaseModel] | None:
    for key in path:
        annotation = section.model_fields[key].annotation if key in section.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return None
        section = annotation
    return section


def _names(section: type[BaseModel]) -> str:
    return ", ".join(section.model_fields)


def _describe(value: Any) -> str:
    return "nothing" if value is None else f"{value!r} ({type(value).__name__})"
