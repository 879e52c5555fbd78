from __future__ import annotations

import gzip
import io
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest

from moss_tok.training.packages import PackageError, fetch_from_npm
from moss_tok.training.voices import STYLE, Voices, _styles, sentences


class Reader:
    def phonemize(self, text: str) -> list[str]:
        return text.split("|")

    def ids(self, phonemes: str) -> list[int]:
        return [0, *map(ord, phonemes), 0]


class Session:
    """Keeps what it is fed; a phoneme is a sample."""

    def __init__(self) -> None:
        self.fed: list[dict[str, np.ndarray]] = []

    def run(self, _, fed):
        self.fed.append(fed)
        return [np.zeros(fed["tokens"].shape[1] - 2, np.float32)]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two voices, of lengths 0 to 9: one's styles are the length, the other's a hundred more."""
    with tarfile.open(tmp_path / "voices.tgz", "w:gz") as file:
        for name, add in (("af_one", 0), ("bm_two", 100)):
            table = (np.arange(10)[:, None] + np.full(STYLE, add)).astype("<f4").tobytes()
            member = tarfile.TarInfo(f"package/voices/{name}.bin")
            member.size = len(table)
            file.addfile(member, io.BytesIO(table))
    return tmp_path / "voices.tgz"


def test_voices_are_picked_or_mixed_by_the_length_of_the_text(archive):
    voices = Voices.__new__(Voices)
    voices.styles, voices.reader, voices.session = _styles(archive), Reader(), Session()
    draw = random.Random(0)
    for _ in range(60):
        assert voices.speak("abc|defgh", draw).shape == (8,)
    short, long = voices.session.fed[0::2], voices.session.fed[1::2]
    styles = np.array([fed["style"][0, 0] for fed in short])
    assert np.array([fed["style"][0, 0] for fed in long]) == pytest.approx(styles + 2)
    assert {3.0, 103.0} < set(styles)
    assert 10 < ((styles > 3.5) & (styles < 102.5)).sum() < 40
    assert len({float(fed["speed"][0]) for fed in short}) == 60


def test_sentences_are_plain_and_of_the_explanations_only(tmp_path):
    with gzip.open(tmp_path / "jargon.dz", "wt", encoding="utf-8") as file:
        file.write(
            "Headword. This headword is not a sentence that anybody should be made to read.\n\n"
            "    Begun. A sentence that is long enough\n    and goes over two lines. It has {a link} to another in it. "
            "Too short. Nobody reads 3 numbers as they are written in that sentence. Ended.\n"
        )
    assert sentences(tmp_path / "jargon.dz") == ["A sentence that is long enough and goes over two lines."]


def test_an_npm_package_that_lies_there_is_taken(tmp_path, monkeypatch):
    (tmp_path / "kokoro-js-1.2.1.tgz").touch()
    monkeypatch.setenv("PATH", "")
    assert fetch_from_npm("kokoro-js", "1.2.1", tmp_path).name == "kokoro-js-1.2.1.tgz"
    with pytest.raises(PackageError, match=r"npm is not installed: put kokoro-js-1\.2\.2\.tgz"):
        fetch_from_npm("kokoro-js", "1.2.2", tmp_path)
