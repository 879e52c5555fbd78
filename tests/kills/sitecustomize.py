"""SIGKILL where it hurts: ends a process at a chosen call of a chosen function, once; or another signal, some times.

Python imports a module of this name when it starts, in every process that has its folder on PYTHONPATH: that is how a
test reaches into a driver, an actor or a reader without a hook in the product. What to do stands in MOSS_TOK_KILL, as
the JSON of `Point`'s fields.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.util
import json
import os
import signal
import sys
import threading
from dataclasses import dataclass
from types import ModuleType
from typing import Any

VARIABLE = "MOSS_TOK_KILL"


@dataclass(frozen=True)
class Point:
    """When to end a process."""

    module: str
    """Where the function is looked up."""
    name: str
    """Of the function there, or Class.method."""
    call: int
    """Which call of it, from 1, in one process."""
    when: str
    """before or after."""
    mark: str
    """A file that is made at that moment. Where it is there already nobody is killed: the next process lives."""
    number: int = signal.SIGKILL
    """The signal."""
    times: int = 1
    """How often it is sent, one right after the other."""


def arm(point: Point) -> None:
    """Have this process killed at the point, whether its module is imported yet or not."""
    if point.module in sys.modules:
        _patch(sys.modules[point.module], point)
    else:
        sys.meta_path.insert(0, _Finder(point))


def _patch(module: ModuleType, point: Point) -> None:
    *path, name = point.name.split(".")
    owner: Any = functools.reduce(getattr, path, module)
    original = getattr(owner, name)
    calls = 0

    @functools.wraps(original)
    def fatal(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if (calls, point.when) == (point.call, "before"):
            _die(point)
        result = original(*arguments, **options)
        if (calls, point.when) == (point.call, "after"):
            _die(point)
        return result

    setattr(owner, name, fatal)


def _die(point: Point) -> None:
    try:
        os.close(os.open(point.mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    # From a thread: the first of several may raise an exception in this one.
    sender = threading.Thread(target=lambda: [os.kill(os.getpid(), point.number) for _ in range(point.times)])
    sender.start()
    sender.join()


class _Finder(importlib.abc.MetaPathFinder):
    """Patches the module as soon as it has been imported."""

    def __init__(self, point: Point) -> None:
        self._point = point

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> Any:
        if fullname != self._point.module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _patch(module, self._point)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if VARIABLE in os.environ:
    arm(Point(**json.loads(os.environ[VARIABLE])))
