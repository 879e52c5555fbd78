"""The report as a person opens it, in headless Chromium: pictures decode, players have sound and nothing calls out.

`make test` brings the browser; without make, `python scripts/install_browser.py` does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from playwright.sync_api import Browser, Page

from pipeline.dataset.dataset import read_output
from pipeline.loading.decode import load_decoder
from pipeline.report.gather import gather
from pipeline.report.page import render
from tests.browser import headless_chromium
from tests.support import CORPUS, demo_config, tokenize_in_process

HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)</script>\u202e' + "long" * 60
"""A transcript that must stay text."""

LOADED = """() => Promise.all([...document.querySelectorAll("audio")].map(player => new Promise((done, failed) => {
    if (player.error) failed(player.error);
    else if (player.readyState > 0) done();
    else { player.onloadedmetadata = done; player.onerror = failed; }
})))"""

PLAY = """player => new Promise((done, failed) => {
    player.ontimeupdate = () => player.currentTime > 0 && done(player.currentTime);
    player.muted = true;
    player.play().catch(failed);
})"""

FETCH = """() => new Promise(done => {
    const image = new Image();
    image.onload = () => done("loaded");
    image.onerror = () => done("refused");
    image.src = "http://127.0.0.1:9/x.png";
})"""

OUTSIDE = """all => all.filter(one => !one.closest(".scroll") && !one.matches(".hidden"))
    .map(one => one.getBoundingClientRect()).filter(box => box.right > innerWidth + 1).length"""

SOUND = """async player => {
    const bytes = Uint8Array.from(atob(player.src.split(",")[1]), character => character.charCodeAt(0));
    const context = new OfflineAudioContext(1, 1, 24000);
    const sound = await context.decodeAudioData(bytes.buffer);
    const loudest = sound.getChannelData(0).reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    return {decoded: sound.duration, loudest, ready: player.readyState, shown: player.duration};
}"""


@dataclass
class Seen:
    """The page in a window, and what it said and asked for while it was opened."""

    page: Page
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


Open: TypeAlias = Callable[..., AbstractContextManager[Seen]]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of an output of real speech, with a transcript and rejects that try to get out of it."""
    folder = tmp_path_factory.mktemp("browser")
    speech = sorted((CORPUS / "folder" / "prompts").glob("*/*"))[:6]
    records: list[dict[str, Any]] = [{"audio": str(path), "text": HOSTILE} for path in speech]
    records += [{"audio": str(CORPUS / "folder/broken/page.wav")}, {"audio": f"{HOSTILE}.wav"}]
    (folder / "clips.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    allowed = f"input.allow=[{folder}, {CORPUS}]"
    untrained = "model.name=cat-tiny"  # so that the page has its banner too
    given = demo_config(folder / "codes", f"input.splits.train=[{folder}/clips.jsonl]", allowed, untrained)
    tokenize_in_process(given)
    output = read_output(str(folder / "codes"))
    (folder / "report.html").write_bytes(render(gather(output, 3, lambda: load_decoder(output.record))))
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with headless_chromium() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def open_page(browser: Browser, report: Path) -> Open:
    @contextmanager
    def opened(width: int = 1280, **options: Any) -> Iterator[Seen]:
        with browser.new_context(viewport={"width": width, "height": 900}, **options) as context:
            seen = Seen(context.new_page())
            seen.page.on("console", lambda message: seen.said.append(message.text))
            seen.page.on("pageerror", lambda error: seen.said.append(str(error)))
            seen.page.on("dialog", lambda dialog: seen.said.append(dialog.message))
            seen.page.on("request", lambda request: seen.asked.append(request.url))
            seen.page.goto(report.as_uri())
            yield seen

    return opened


def test_it_opens_without_an_error_and_asks_nobody_anything(open_page: Open, report: Path):
    with open_page() as seen:
        seen.page.evaluate(LOADED)
        assert seen.said == []
        assert [url for url in seen.asked if not url.startswith("data:")] == [report.as_uri()]
        assert seen.page.title() == "codes: audio codes"
        assert seen.page.evaluate("document.scripts.length") == 0


def test_the_policy_forbids_what_a_name_might_smuggle_in(open_page: Open):
    with open_page() as seen:
        assert seen.page.evaluate(FETCH) == "refused"
        assert any("Content Security Policy" in line for line in seen.said)


def test_every_picture_is_there(open_page: Open):
    with open_page() as seen:
        sizes = seen.page.eval_on_selector_all("img", "all => all.map(one => [one.naturalWidth, one.naturalHeight])")
        assert len(sizes) == 3 * (6 + 1)
        assert all(width > 10 and height in (32, 80) for width, height in sizes)
        plots = seen.page.eval_on_selector_all(".plot .bar", "all => all.map(bar => bar.getBoundingClientRect().width)")
        assert len(plots) > 64
        assert all(width > 0 for width in plots)


def test_every_player_has_sound_of_the_length_of_its_clip(open_page: Open):
    with open_page() as seen:
        seen.page.evaluate(LOADED)
        players = seen.page.query_selector_all("audio")
        assert len(players) == 3 * 6
        for player in players:
            sound = player.evaluate(SOUND)
            assert sound["loudest"] > 0.01
            assert sound["shown"] == pytest.approx(sound["decoded"], abs=0.05)
            assert 0.5 < sound["decoded"] <= 8


def test_a_player_plays(open_page: Open):
    with open_page() as seen:
        player = seen.page.query_selector("audio")
        assert player is not None
        assert player.evaluate(PLAY) > 0


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_it_fits_the_window(open_page: Open, width: int):
    with open_page(width) as seen:
        seen.page.evaluate("document.querySelector('details').open = true")
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
        assert seen.page.eval_on_selector_all("header *, main *", OUTSIDE) == 0
        sizes = "all => all.map(one => parseFloat(getComputedStyle(one).fontSize))"
        assert min(seen.page.eval_on_selector_all("p, td, th, dd, figcaption", sizes)) >= 12


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_their_ground_in_both_schemes(open_page: Open, scheme: str):
    """Contrast of at least 4.5 (WCAG 2.2, success criterion 1.4.3)."""
    with open_page(color_scheme=scheme) as seen:
        colours = seen.page.evaluate(
            """() => ["body", ".lead", ".facts", ".banner", "a", "caption", "th"].map(selector => {
                const one = document.querySelector(selector);
                let ground = one;
                while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
                return [getComputedStyle(one).color, getComputedStyle(ground).backgroundColor];
            })"""
        )
        for ink, ground in colours:
            assert contrast(ink, ground) >= 4.5, (ink, ground)
        paper = luminance(colours[0][1])
        assert paper < 0.05 if scheme == "dark" else paper > 0.9


def test_it_prints_with_its_pictures(open_page: Open):
    with open_page() as seen:
        pdf = seen.page.pdf(format="A4", print_background=False)
        assert pdf.startswith(b"%PDF")
        assert pdf.count(b"/Subtype /Image") >= 3 * 7


def test_what_comes_from_outside_stays_text(open_page: Open):
    with open_page() as seen:
        assert HOSTILE.replace("\u202e", "\\u202e")[:290] in (seen.page.text_content("blockquote") or "")
        assert seen.page.query_selector("[src=x]") is None
        assert seen.said == []


def luminance(colour: str) -> float:
    """Relative luminance of an rgb() colour (WCAG 2.2, "relative luminance")."""
    parts = [float(part) / 255 for part in colour.partition("(")[2].rstrip(")").split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
