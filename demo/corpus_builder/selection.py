"""Which recordings go into which packing, and how they are stored there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .audio import AAC, FLAC, MP3, OPUS, VORBIS, WAV_16, WAV_24, WAV_FLOAT, Encoding, decode, encode
from .clip import PACKINGS, Clip, Original, Packing
from .debian import LANGUAGES
from .originals import librivox, prompt, sound

# Spoken in all five languages; the prompt at position i goes to packing i mod 3.
PROMPTS = (
    "vm-sorry",
    "vm-nobodyavail",
    "vm-review-urgent",
    "conf-onlyperson",
    "vm-tooshort",
    "conf-now-recording",
    "vm-repeat",
    "vm-whichbox",
    "vm-starmain",
    "vm-saveoper",
    "agent-alreadyon",
    "auth-thankyou",
)


@dataclass(frozen=True)
class Storage:
    """How a clip is stored: `encoding` None keeps the original file as it is, `sample_rate` None keeps the rate (Hz).

    `variant` is the kind of prompt to start from: "wav" (8 kHz) or "g722" (16 kHz).
    """

    encoding: Encoding | None
    sample_rate: int | None = None
    variant: str = "g722"


KEPT = Storage(None)

# The prompt at position i in language number j takes entry i // 3 + j, round and round.
PROMPT_STORAGE: dict[Packing, tuple[Storage, ...]] = {
    "folder": (
        Storage(None, variant="wav"),
        Storage(WAV_24, variant="wav"),
        Storage(MP3),
        Storage(FLAC),
        Storage(AAC),
    ),
    "webdataset": (
        Storage(WAV_16, variant="wav"),
        Storage(FLAC, variant="wav"),
        Storage(MP3, 22_050),
        Storage(VORBIS),
        Storage(OPUS, 48_000),
    ),
    "parquet": (
        Storage(FLAC),
        Storage(MP3, variant="wav"),
        Storage(VORBIS, variant="wav"),
        Storage(OPUS, 48_000),
        Storage(WAV_FLOAT, variant="wav"),
    ),
}

# The LibriVox clips, counted from 0, that the Parquet file holds again as FLAC: other bytes, the same samples.
LIBRIVOX_AS_FLAC = (1, 2, 4)

# Half a minute and more in one take.
LONG_PROMPTS: tuple[tuple[Packing, str, str, Storage], ...] = (
    ("folder", "en", "demo-congrats", Storage(FLAC, variant="wav")),
    ("folder", "ru", "demo-congrats", Storage(MP3)),
    ("webdataset", "fr", "demo-congrats", Storage(VORBIS)),
    ("webdataset", "es", "priv-callee-options", Storage(OPUS, 48_000)),
    ("parquet", "it", "priv-callee-options", Storage(AAC)),
)

# Labels are display names of the AudioSet ontology, chosen by us from the names of the samples.
SOUNDS: tuple[tuple[Packing, str, Storage, tuple[str, ...]], ...] = (
    ("folder", "ambi_choir", KEPT, ("Choir",)),
    ("folder", "perc_swash", Storage(WAV_24), ("Percussion",)),
    ("folder", "elec_plip", Storage(WAV_FLOAT), ("Electronic music",)),
    ("folder", "loop_tabla", Storage(AAC), ("Tabla", "Music")),
    ("folder", "guit_harmonics", Storage(MP3, 22_050), ("Guitar",)),
    ("webdataset", "ambi_lunar_land", Storage(OPUS, 48_000), ("Ambient music",)),
    ("webdataset", "perc_bell", Storage(MP3), ("Bell",)),
    ("webdataset", "vinyl_rewind", Storage(VORBIS), ("Scratching (performance technique)",)),
    ("webdataset", "loop_industrial", Storage(FLAC, 48_000), ("Drum machine", "Music")),
    ("webdataset", "bd_haus", Storage(WAV_FLOAT), ("Bass drum",)),
    ("parquet", "misc_crow", Storage(WAV_16, 22_050), ("Crow",)),
    ("parquet", "ambi_piano", Storage(FLAC), ("Piano",)),
    ("parquet", "guit_e_fifths", Storage(AAC, 48_000), ("Guitar", "Music")),
)


def select(root: Path) -> Iterator[Clip]:
    """Every sound clip of the corpus, made from the packages unpacked below `root`."""
    for number, original in enumerate(librivox(root)):
        yield store("folder", original, KEPT)
        if number in LIBRIVOX_AS_FLAC:
            yield store("parquet", original, Storage(FLAC))
    for position, name in enumerate(PROMPTS):
        packing = PACKINGS[position % 3]
        for number, language in enumerate(LANGUAGES):
            choices = PROMPT_STORAGE[packing]
            storage = choices[(position // 3 + number) % len(choices)]
            yield store(packing, prompt(root, language, name, storage.variant), storage)
    for packing, language, name, storage in LONG_PROMPTS:
        yield store(packing, prompt(root, language, name, storage.variant), storage)
    for packing, name, storage, labels in SOUNDS:
        yield store(packing, sound(root, name), storage, labels)


def store(packing: Packing, original: Original, storage: Storage, labels: tuple[str, ...] = ()) -> Clip:
    """The clip that `original` becomes when it is stored as `storage` says."""
    if storage.encoding is None:
        data, suffix, changes = original.data, original.suffix, "none"
    else:
        waveform, sample_rate = decode(original.data, original.suffix)
        target_rate = storage.sample_rate or sample_rate
        data = encode(waveform, sample_rate, storage.encoding, target_rate)
        suffix = storage.encoding.suffix
        changes = f"decoded and stored as {storage.encoding.codec} in {suffix}"
        if target_rate != sample_rate:
            changes += f", resampled from {sample_rate} to {target_rate} Hz"
    return Clip(
        packing=packing,
        stem=original.stem,
        suffix=suffix,
        data=data,
        text=original.text,
        language=original.language,
        speaker=original.speaker,
        labels=labels,
        license=original.license,
        copyright=original.copyright,
        origin=original.origin,
        changes=changes,
    )
