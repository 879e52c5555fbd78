"""The page as a document: all of it there, nothing from outside, whatever the output is like."""

from __future__ import annotations

import base64
import io
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from pipeline.codecs import Codec
from pipeline.dataset.dataset import Output
from pipeline.pages.numerals import NARROW
from pipeline.report.gather import PageData, gather
from pipeline.report.page import render
from tests.support import demo_config, run_command, tokenize_in_process

VOID = {"meta", "link", "img", "br"}


class Outline(HTMLParser):
    """Every element with its attributes, in order; fails on tags that do not nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self._open: list[str] = []
        self.feed(page)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page(data: PageData) -> str:
    return render(data).decode()


@pytest.mark.slow
def test_everything_is_in_the_page_and_nothing_can_come_from_outside(page: str):
    outline = Outline(page)
    links = [
        value for _, attributes in outline.elements for name, value in attributes.items() if name in ("src", "href")
    ]
    assert len(links) > 20
    assert all(link.startswith(("data:", "#")) for link in links)
    policy = next(meta["content"] for meta in outline.all("meta") if meta.get("http-equiv"))
    assert policy.startswith("default-src 'none'; img-src data:; media-src data:; style-src 'sha256-")
    assert not outline.all("script")
    assert "url(" not in page
    assert "@import" not in page
    assert len(page) < 4_000_000


def test_it_can_be_read_without_seeing_it(page: str):
    outline = Outline(page)
    assert all(image["alt"] for image in outline.all("img"))
    assert all(player["aria-label"] for player in outline.all("audio"))
    assert all(
        "aria-hidden" in drawing or drawing.get("aria-label") or "viewbox" in drawing for drawing in outline.all("svg")
    )
    assert all(cell.get("scope") in ("row", "col") for cell in outline.all("th"))
    levels = [int(tag[1]) for tag, _ in outline.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
    anchors = {attributes["id"] for _, attributes in outline.elements if "id" in attributes}
    assert {link["href"][1:] for link in outline.all("a")} <= anchors


def test_figures_are_those_of_the_output(page: str, data: PageData):
    totals = data.history.totals
    assert f"<dd>{totals.rows}</dd>" in page
    assert f"<dd>{totals.frames * 32:,}</dd>" in page
    assert data.output.record.model.weights_sha256 in page
    assert "Untrained model." in page
    for reason, number in totals.rejects_by_reason.items():
        assert f'<th scope="row">{reason}</th><td class="number">{number}</td>' in page
    assert "Incomplete" not in page
    assert "frames are few for codebooks" in page


def test_the_original_is_heard_as_it_was_encoded_beside_five_depths(data: PageData, page: str, corpus: Path):
    assert len(data.clips) == 2
    for clip in data.clips:
        titles = [panel.title for panel in clip.panels]
        assert titles == ["Original", "1 layer", "4 layers", "8 layers", "16 layers", "32 layers"]
        sounds = []
        for panel in clip.panels:
            sound, rate = sf.read(io.BytesIO(base64.b64decode(panel.sound.partition(",")[2])))
            assert rate == 24_000
            assert np.abs(sound).max() > 0.01
            sounds.append(sound)
            assert panel.sound in page.replace("&#43;", "+").replace("&#34;", '"')
        assert len({len(sound) for sound in sounds}) == 1
        assert all(not np.array_equal(sounds[0], other) for other in sounds[1:])
    assert data.clips[0].codes.startswith("data:image/png;base64,")


def test_the_same_output_makes_the_same_bytes(data: PageData, output: Output, decoder: Codec):
    assert render(gather(output, 2, lambda: decoder)) == render(data)


def test_a_source_that_is_gone_or_changed_is_said_and_the_decoded_is_shown(page_of: Callable[..., str], tmp_path: Path):
    source = tmp_path / "audio"
    source.mkdir()
    rate = 24_000
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    sf.write(source / "a.wav", tone, rate)
    output = tmp_path / "codes"
    tokenize_in_process(demo_config(output, f"input.splits.train=[{source}]"))
    assert "Original</strong>" in page_of(output)
    assert "The original is not shown" not in page_of(output)

    sf.write(source / "a.wav", tone[::-1] * 0.5, rate)
    changed = page_of(output)
    assert "The original is not shown: <bdi>" in changed
    assert "changed since it was planned" in changed
    (source / "a.wav").unlink()
    gone = page_of(output)
    assert "The original is not shown: <bdi>" in gone
    assert "the file is not there" in gone
    for page in (changed, gone):
        assert "Original</strong>" not in page
        assert len(Outline(page).all("audio")) == 5


def test_an_output_that_is_not_finished_says_how_far_it_is(root: Path, tmp_path: Path, page_of: Callable[..., str]):
    copy = tmp_path / "codes"
    shutil.copytree(root, copy)
    manifests = sorted(copy.glob("_moss_tok/shards/*.json"))
    manifests[0].unlink()
    assert f"{len(manifests) - 1} of {len(manifests)} shards are committed." in page_of(copy, 0)
    for path in manifests[1:]:
        path.unlink()
    nothing = page_of(copy)
    assert "Nothing is committed yet" in nothing
    assert 'id="codes"' not in nothing
    Outline(nothing)


def test_an_output_without_a_single_row_is_a_page_of_rejects(tmp_path: Path, page_of: Callable[..., str]):
    source = tmp_path / "audio"
    source.mkdir()
    hostile = "<img src=x onerror=alert(1)>&\u202e\"'.wav"
    (source / hostile).write_bytes(b"<script>alert(2)</script>")
    tokenize_in_process(demo_config(tmp_path / "codes", f"input.splits.train=['{source}']"))
    page = page_of(tmp_path / "codes", 4)
    assert "There are no rows" in page
    assert "not_audio" in page
    assert "<img src=x" not in page
    assert "<script" not in page
    assert "\u202e" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;&amp;\\u202e" in page
    assert not Outline(page).all("img")


def test_the_command_writes_the_page_and_refuses_what_makes_none(root: Path, tmp_path: Path):
    result = run_command("report", str(root), "-o", str(tmp_path / "page.html"), "--clips", "0")
    assert result.returncode == 0, result.stderr
    assert "page.html: " in result.stdout
    assert "untrained" in result.stdout
    page = (tmp_path / "page.html").read_text()
    assert "<audio" not in page
    assert f"{NARROW}h" in page or f"{NARROW}min" in page
    for arguments, message in (
        ([str(root), "--clips", "-1"], "--clips -1: 0 to 24"),
        ([str(root), "-o", "report.pdf"], "must end in .html"),
        ([str(tmp_path)], "no output of moss-tok"),
    ):
        refused = run_command("report", *arguments)
        assert refused.returncode == 2
        assert message in refused.stderr
