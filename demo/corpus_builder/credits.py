"""Writes the licence texts and the README that lie beside the audio."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from string import Template

from .clip import PACKINGS, Clip
from .debian import LANGUAGES, VERSIONS, copyright_file

TEMPLATE = Path(__file__).with_name("README.template.md")


def write_credits(clips: Sequence[Clip], root: Path, corpus: Path) -> None:
    """Write README.md and LICENSES/; raises ValueError where the packages of two languages differ in their terms."""
    folder = corpus / "LICENSES"
    folder.mkdir(parents=True, exist_ok=True)
    texts = {language: copyright_file(root, f"asterisk-core-sounds-{language}") for language in LANGUAGES}
    if len(set(texts.values())) > 1:
        raise ValueError("the asterisk-core-sounds packages no longer share one copyright file")
    (folder / "asterisk-core-sounds.txt").write_text(texts["en"], encoding="utf-8")
    for package in ("pocketsphinx-testdata", "sonic-pi-samples"):
        (folder / f"{package}.txt").write_text(copyright_file(root, package), encoding="utf-8")
    readme = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        counts=_counts(clips),
        pocketsphinx=VERSIONS["pocketsphinx-testdata"],
        asterisk=VERSIONS["asterisk-core-sounds-en"],
        sonic=VERSIONS["sonic-pi-samples"],
    )
    (corpus / "README.md").write_text(readme, encoding="utf-8")


def _counts(clips: Sequence[Clip]) -> str:
    rows = Counter(clip.packing for clip in clips if clip.defect is None)
    rejects = Counter(clip.packing for clip in clips if clip.defect is not None)
    lines = ["| packing | clips | broken on purpose |", "|---|---|---|"]
    lines += [f"| {packing} | {rows[packing]} | {rejects[packing]} |" for packing in PACKINGS]
    return "\n".join(lines)
