"""Find or fetch a headless Chromium for the browser tests, and make it `chromium` beside this Python.

python scripts/install_browser.py            # .venv/bin/chromium

Does not need root. It tries Playwright's own build, a browser that is installed, and Debian's packages unpacked into
the environment, in this order. Each is started first, because one that lacks a library does not work.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

BROWSER = Path(sys.prefix) / "bin" / "chromium"
"""What the tests start."""

INSTALLED = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chromium-headless-shell")
DEBIAN_PACKAGE = "chromium-headless-shell"
UNPACKED = Path(sys.prefix) / "share" / "chromium"


def main() -> int:
    """Try each source of a browser until one starts; returns the exit status."""
    troubles = []
    for source in (_of_playwright, _of_this_machine, _of_debian):
        try:
            command = source()
            BROWSER.unlink(missing_ok=True)
            BROWSER.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
            BROWSER.chmod(0o755)
            _start(BROWSER)
        except (OSError, subprocess.SubprocessError, LookupError) as error:
            BROWSER.unlink(missing_ok=True)
            troubles.append(f"{source.__name__.removeprefix('_of_')}: {_reason(error)}")
        else:
            print(f"{BROWSER}: {command}")
            return 0
    print("no headless Chromium can be had for the browser tests:", *troubles, sep="\n  ", file=sys.stderr)
    return 1


def _of_playwright() -> str:
    """The build that Playwright downloads from its own servers."""
    playwright = [sys.executable, "-m", "playwright", "install"]
    _run([*playwright, "--only-shell", "chromium"])
    listing = _run([*playwright, "--dry-run", "--only-shell", "chromium"])
    for folder in re.findall(r"Install location:\s+(.+)", listing):
        for program in sorted(Path(folder.strip()).rglob("*headless*shell")):
            if program.is_file():
                return shlex.quote(str(program))
    raise LookupError("its download holds no headless shell")


def _of_this_machine() -> str:
    """A browser on the PATH, unless it is the one made here."""
    for name in INSTALLED:
        program = shutil.which(name)
        if program and Path(program).resolve() != BROWSER.resolve():
            return f"{shlex.quote(program)} --headless"
    raise LookupError(f"none of {', '.join(INSTALLED)} is installed")


def _of_debian() -> str:
    """Debian's headless shell with the libraries that this machine lacks, unpacked without installing anything."""
    shutil.rmtree(UNPACKED, ignore_errors=True)
    lists, cache, root = UNPACKED / "lists", UNPACKED / "cache", UNPACKED / "root"
    for folder in (lists / "partial", cache):
        folder.mkdir(parents=True)
    apt = ["apt-get", "-qq", f"-oDir::State::Lists={lists}", f"-oDir::Cache={cache}", "-oDebug::NoLocking=1"]
    _run([*apt, "update"])
    plan = _run([*apt, "install", "--simulate", "--no-install-recommends", DEBIAN_PACKAGE])
    _run([*apt, "download", DEBIAN_PACKAGE, *re.findall(r"^Inst (\S+)", plan, re.MULTILINE)], cwd=cache)
    for package in sorted(cache.glob("*.deb")):
        _run(["dpkg", "-x", str(package), str(root)])
    shutil.rmtree(lists)
    shutil.rmtree(cache)
    program = root / "usr/lib/chromium/chromium-headless-shell"
    if not program.is_file():
        raise LookupError(f"the package {DEBIAN_PACKAGE} has no {program.relative_to(root)}")
    libraries = sorted({str(path.parent) for path in (root / "usr/lib").rglob("*.so*")})
    return f"env LD_LIBRARY_PATH={shlex.quote(':'.join(libraries))} {shlex.quote(str(program))}"


def _start(browser: Path) -> None:
    """Show an empty page. Raises SubprocessError if it cannot."""
    page = _run([str(browser), "--no-sandbox", "--disable-gpu", "--dump-dom", "data:text/html,<p>here</p>"])
    if "<p>here</p>" not in page:
        raise subprocess.SubprocessError(f"started, and showed {page[:200]!r}")


def _run(command: list[str], cwd: Path | None = None) -> str:
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True, timeout=600).stdout


def _reason(error: Exception) -> str:
    said = getattr(error, "stderr", None) or str(error)
    return " ".join(said.split())[-300:]


if __name__ == "__main__":
    sys.exit(main())
