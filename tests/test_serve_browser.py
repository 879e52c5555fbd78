"""The served page as a person sees it while a run is on, in headless Chromium; and the command that serves it."""

from __future__ import annotations

import json
import re
import signal
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from pipeline.dataset.dataset import Output
from pipeline.dataset.opening import open_output
from pipeline.serve.server import PageServer
from pipeline.serve.watch import Watch
from pipeline.shard.tokenize import tokenize_shard
from pipeline.steps.encode import load_encoder
from tests.browser import headless_chromium
from tests.support import CORPUS, DEADLINE_SECONDS, demo_config, rows, start_command
from tests.test_report_browser import HOSTILE, LOADED, OUTSIDE

COMMITTED = "number => document.querySelector('#progress').textContent.includes(`(${number} committed`)"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with headless_chromium() as browser:
        yield browser


class Run:
    """A run that commits a shard when it is told to."""

    def __init__(self, folder: Path) -> None:
        speech = sorted((CORPUS / "folder" / "prompts" / "es").iterdir())
        records = [{"audio": str(path), "text": HOSTILE} for path in speech]
        records += [{"audio": str(CORPUS / "folder/broken/page.wav")}, {"audio": f"{HOSTILE}.wav"}]
        (folder / "clips.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        source = f"input.splits.train=[{folder}/clips.jsonl]"
        allowed = f"input.allow=[{folder}, {CORPUS}]"
        self._config = demo_config(
            folder / "codes", source, allowed, "model.name=cat-tiny", "input.clips_per_shard=2", "run.machines=any"
        )
        self.folder = folder / "codes"
        self._output: Output = open_output(self._config)
        record, batch = self._output.record, self._config.batch
        self._encoder = load_encoder(self._config.model, record.num_quantizers, batch.max_frames, record.latents)
        self._left = list(self._output.todo)

    def commit_one(self) -> None:
        tokenize_shard(self._left.pop(0), self._encoder, self._config, self._output.record)

    def finish(self) -> None:
        while self._left:
            self.commit_one()
        self._output.finish()


def test_the_page_follows_a_run_and_any_row_can_be_heard(chromium: Browser, tmp_path: Path):
    run = Run(tmp_path)
    with PageServer(Watch(str(run.folder), every=0.05), "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            _follow(chromium, run, server.url)
        finally:
            server.shutdown()
            thread.join()


def _follow(chromium: Browser, run: Run, url: str) -> None:
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(1000 * DEADLINE_SECONDS)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))

    page.goto(url)
    assert "There are none yet." in (page.text_content("#latest") or "")
    page.fill("input[name=id]", "kept while the page is refreshed")
    run.commit_one()
    page.wait_for_function(COMMITTED, arg=1)
    assert page.title() == "33.3\u202f% codes"
    run.finish()
    page.wait_for_function("() => document.title === 'codes'")
    assert page.input_value("input[name=id]") == "kept while the page is refreshed"
    assert page.locator("#rejects .examples li").count() == 2
    assert page.locator("#latest tbody tr").count() == 4
    assert page.locator(".plot .bar").count() > 0
    for width in (360, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.eval_on_selector_all("header *, main *", OUTSIDE) == 0

    row = rows(run.folder)[2]
    page.fill("input[name=id]", row["id"])
    page.click("button")
    page.wait_for_selector("#whole", state="attached")
    page.eval_on_selector("#whole", "player => { player.preload = 'metadata'; player.load(); }")
    page.evaluate(LOADED)
    lengths = page.eval_on_selector_all("audio", "all => all.map(player => player.duration)")
    assert len(lengths) == 1 + 6
    assert lengths == pytest.approx([row["duration"]] * 7, abs=0.05)
    assert page.query_selector("[src=x]") is None
    page.goto(url)
    page.click("text=The whole report")
    page.wait_for_selector("#codes")
    assert said == []
    assert [place for place in asked if not place.startswith((url, "data:"))] == []
    page.close()


def test_the_page_says_that_its_server_is_gone(chromium: Browser, tmp_path: Path):
    run = Run(tmp_path)
    page = chromium.new_page()
    with PageServer(Watch(str(run.folder), every=0.05), "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        page.goto(server.url)
        assert page.is_hidden("#lost")
        server.shutdown()
        thread.join()
    page.wait_for_selector("#lost", state="visible")
    page.close()


def test_the_command_serves_until_it_is_interrupted(tmp_path: Path):
    run = Run(tmp_path)
    run.finish()
    process = start_command("serve", str(run.folder), "--port", "0")
    assert process.stdout is not None
    found = re.match(r"(http://127\.0\.0\.1:\d+/) ", process.stdout.readline())
    assert found is not None
    with urllib.request.urlopen(found[1]) as answer:
        assert b"Complete." in answer.read()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out, err) == (0, "stopped\n", "")
