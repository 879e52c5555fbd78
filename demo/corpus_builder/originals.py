"""Finds the original recordings, their transcripts and their licences in the unpacked packages."""

from __future__ import annotations

import gzip
import re
import unicodedata
from pathlib import Path

from .clip import Original
from .debian import copyright_file, license_and_holder

# The voice's folder in the packages, and who speaks according to the packages.
VOICES: dict[str, tuple[str, str]] = {
    "en": ("en_US_f_Allison", "Allison Smith"),
    "fr": ("fr_CA_f_June", "June Wallack"),
    "es": ("es_MX_f_Allison", "Allison Smith"),
    "it": ("it_IT_m_Carlo", "Carlo Flora"),
    "ru": ("ru_RU_f_IvrvoiceRU", "IvrvoiceRU"),
}

LIBRIVOX = Path("usr/share/pocketsphinx/test/data/librivox")


def librivox(root: Path) -> list[Original]:
    """The five LibriVox clips (WAV, 16-bit, 16 kHz, mono) with their transcripts, in reading order."""
    package = "pocketsphinx-testdata"
    originals = []
    for line in (root / LIBRIVOX / "transcription").read_text(encoding="utf-8").splitlines():
        match = re.fullmatch(r"<s> (.*) </s> \((.*)\)", line)
        if match is None:
            raise ValueError(f"not a line of a Sphinx transcription file: {line!r}")
        text, name = match.groups()
        license, holder = license_and_holder(copyright_file(root, package), f"test/data/librivox/{name}.wav")
        originals.append(
            Original(
                stem=f"librivox/{name.rpartition('-')[2]}",
                data=(root / LIBRIVOX / f"{name}.wav").read_bytes(),
                suffix=".wav",
                text=_tidy(text),
                language="en",
                speaker="sense_and_sensibility_01_austen",
                license=license,
                copyright=holder,
                origin=f"{package}: {LIBRIVOX / name}.wav",
            )
        )
    return originals


def prompt(root: Path, language: str, name: str, variant: str) -> Original:
    """A spoken prompt with its transcript; variant "wav" is 16-bit at 8 kHz, variant "g722" is G.722 at 16 kHz."""
    package = f"asterisk-core-sounds-{language}-{variant}"
    voice, speaker = VOICES[language]
    path = Path("usr/share/asterisk/sounds") / voice / f"{name}.{variant}"
    license, holder = license_and_holder(copyright_file(root, package), f"{language}-{name}")
    return Original(
        stem=f"prompts/{language}/{name}",
        data=(root / path).read_bytes(),
        suffix=f".{variant}",
        text=_prompt_texts(root, language)[name],
        language=language,
        speaker=speaker,
        license=license,
        copyright=holder,
        origin=f"{package}: {path}",
    )


def sound(root: Path, name: str) -> Original:
    """A sound effect, instrument or loop (FLAC, 44.1 kHz), refused unless the package says that this file is CC0."""
    package = "sonic-pi-samples"
    path = Path("usr/share/sonic-pi/samples") / f"{name}.flac"
    license, holder = license_and_holder(copyright_file(root, package), f"etc/samples/{name}.flac")
    if license != "CC0":
        raise ValueError(f"{name} of {package} is under {license}; the corpus takes only sounds stated to be CC0")
    return Original(
        stem=f"sounds/{name}",
        data=(root / path).read_bytes(),
        suffix=".flac",
        text=None,
        language=None,
        speaker=None,
        license=license,
        copyright=holder,
        origin=f"{package}: {path}",
    )


def _prompt_texts(root: Path, language: str) -> dict[str, str]:
    package = f"asterisk-core-sounds-{language}"
    path = root / "usr/share/doc" / package / f"core-sounds-{language}.txt.gz"
    texts = {}
    # One of the lists opens with a byte order mark, which "utf-8-sig" drops.
    with gzip.open(path, "rt", encoding="utf-8-sig") as lines:
        for line in lines:
            name, separator, text = line.partition(":")
            if separator and not line.startswith(";"):
                texts[name] = _tidy(text)
    return texts


def _tidy(text: str) -> str:
    return unicodedata.normalize("NFC", " ".join(text.split()))
