"""The codecs that lie in this package, by name, and whom their weights are owed to."""

from __future__ import annotations

from pathlib import Path

EMBEDDED_FOLDER = Path(__file__).parent / "models"
EMBEDDED_MODELS = ("cat-speech", "cat-tiny")
"""cat-speech is trained (docs/training.md). cat-tiny is not; it is fast, and there for tests."""
EMBEDDED_LICENSES = {
    "cat-speech": "CC-BY-SA-3.0: it learned from recordings by Nickolay V. Shmyrev (festvox-ru), Allison Smith, "
    "June Wallack, Carlo Flora, Maxim Topal and Digium (Asterisk), Sam Aaron and freesound.org (Sonic Pi), and from "
    "speech by hibari-tts and Kokoro-82M"
}
"""Of weights that are under another licence than the code. models/NAME/LICENSE.md says more."""
