"""What each metric of `moss-tok evaluate` costs: CPU seconds of one core for an hour of audio.

python -m benchmarks.evaluate                  # speech of the demo corpus, joined to clips of 10 s
python -m benchmarks.evaluate --clips 20 --metrics stoi pesq_wb

Each metric compares a clip with the same clip and noise of 20 dB, on one thread, after one clip to warm up.
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from pipeline.evaluate.metrics import METRICS, Waveform
from pipeline.evaluate.models import MODEL_METRICS, ClipText, ModelNames
from pipeline.evaluate.threads import one_thread

CORPUS = Path(__file__).parent.parent / "demo" / "corpus" / "folder" / "librivox"
SAMPLE_RATE = 16_000
SECONDS = 10
TEXT = ClipText("and mister john dashwood had then leisure to consider how much there might be", "en")


def clips(count: int) -> list[tuple[Waveform, Waveform]]:
    """Pairs of speech of SECONDS and the same with noise; each begins elsewhere in the joined recordings."""
    joined = np.concatenate([soundfile.read(path, dtype="float32")[0] for path in sorted(CORPUS.glob("*.wav"))])
    generator = np.random.default_rng(0)
    pairs = []
    for _ in range(count):
        start = int(generator.integers(0, len(joined) - SECONDS * SAMPLE_RATE))
        reference = joined[start : start + SECONDS * SAMPLE_RATE]
        noise = generator.standard_normal(len(reference)) * np.sqrt(np.mean(reference**2)) * 0.1
        pairs.append((reference, (reference + noise).astype(np.float32)))
    return pairs


def measures(recognizer: str | None) -> dict[str, Callable[[Waveform, Waveform], float]]:
    """Every metric that runs here, by name; `wer` with the recognizer that is given."""
    names = ModelNames(recognizer=recognizer)
    found = {name: metric.measure for name, metric in METRICS.items()}
    for name in ["wer_pocketsphinx", *(["wer"] if recognizer else [])]:
        measure = MODEL_METRICS[name].measure
        found[name] = lambda one, other, measure=measure: measure(one, other, TEXT, names)  # type: ignore[misc]
    return found


def cpu_seconds() -> float:
    """User and system time of this process and of those that it waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=10, help="clips to measure (default: %(default)s)")
    parser.add_argument("--metrics", nargs="+", help="by default all that run here")
    parser.add_argument("--recognizer", help="a Whisper model in the format of CTranslate2, for wer")
    arguments = parser.parse_args()
    pairs = clips(arguments.clips + 1)
    print("| metric | core-seconds for an hour of audio | x real time |\n|---|---|---|")
    for name, measure in measures(arguments.recognizer).items():
        if arguments.metrics and name not in arguments.metrics:
            continue
        with one_thread():
            measure(*pairs[0])
            started = cpu_seconds()
            for pair in pairs[1:]:
                measure(*pair)
            spent = cpu_seconds() - started
        hourly = spent * 3600 / (SECONDS * arguments.clips)
        print(f"| {name} | {hourly:,.0f} | {3600 / hourly:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
