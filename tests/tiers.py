"""Two tiers of tests: fast ones stay in their process, and a test that starts another process is slow.

Nobody has to remember to mark a test. Before the run, each test is followed through its fixtures and helpers, and gets
the marker `slow` where that leads to a place at which processes are started. Ways that are not seen so, for instance
through functions of the pipeline, are noticed when it happens: a fast test that starts a process fails, and is then
marked by hand. So is a test that takes more than a second of CPU time without any process.
"""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest

STARTERS = {"subprocess", "multiprocessing", "ray.init", "ray.cluster_utils", "playwright"}
"""Modules and functions that start processes: Ray, servers, browsers, commands."""
OURS = ("tests", "benchmarks", "examples", "scripts")
"""Packages whose functions are followed. The pipeline starts processes only through Ray."""
HARMLESS = {"uname", "ldconfig", "gcc", "ld", "lscpu"}
"""Programs by which libraries ask what machine this is."""

FAST_CPU_SECONDS = 10.0
"""Far above what a fast test may take, which is 1: CPU time too is longer on a busy or slow machine, and the first test
that needs a library pays for its import."""

started: list[str] = []
"""What the current test has started."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: starts a process (Ray, a server, a browser, a command), or takes seconds")
    sys.addaudithook(_note)


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen":
        program, command, *_ = arguments
        if Path(str(program)).name not in HARMLESS:
            started.append(str(command))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and starts_processes(functions_of(item)):
            item.add_marker("slow")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    return (yield from _watched(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    return (yield from _watched(item))


def _watched(item: pytest.Item) -> Generator[None, object, object]:
    started.clear()
    before = time.process_time()
    result = yield
    if item.get_closest_marker("slow") is None:
        if started:
            pytest.fail(f"a fast test starts a process: mark it with @pytest.mark.slow. It starts {started[0]}")
        if (seconds := time.process_time() - before) > FAST_CPU_SECONDS:
            pytest.fail(f"a fast test takes {seconds:.0f} s of CPU time: make it faster, or mark it @pytest.mark.slow")
    return result


def functions_of(item: pytest.Function) -> list[Callable[..., Any]]:
    """The test's function and those of its fixtures."""
    fixtures = item._fixtureinfo.name2fixturedefs.values()
    return [item.function, *(definition.func for definitions in fixtures for definition in definitions)]


def starts_processes(functions: list[Callable[..., Any]]) -> bool:
    """Whether one of these functions, or one that they name, uses a starter."""
    seen: set[int] = set()
    todo = list(functions)
    while todo:
        function = inspect.unwrap(todo.pop())
        if id(function) in seen or not inspect.isfunction(function):
            continue
        seen.add(id(function))
        for value, name in _used(function):
            if name in STARTERS or name.partition(".")[0] in STARTERS:
                return True
            if name.startswith((*OURS, function.__module__)):
                todo += [value] if not inspect.isclass(value) else vars(value).values()
    return False


def _used(function: Callable[..., Any]) -> Iterator[tuple[Any, str]]:
    """What the function's code names, with where that comes from: `subprocess.run`, `tests.seaweed.Seaweed`."""
    names = set(_names(function.__code__))
    for name in names & function.__globals__.keys():
        value = function.__globals__[name]
        if isinstance(value, ModuleType):
            parts = vars(value)
            yield from ((parts[part], f"{value.__name__}.{part}") for part in names & parts.keys())
        else:
            yield value, getattr(value, "__module__", None) or ""


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
