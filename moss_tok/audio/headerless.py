"""Audio files without a header, whose format has to be named: training data has them, a pipeline's input does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def read_g722(path: Path) -> tuple[NDArray[np.float32], int]:
    """The samples (n,) of a G.722 file and its sample rate, 16000; an empty file has no samples."""
    import av

    if path.stat().st_size == 0:
        return np.zeros(0, np.float32), 16000
    with av.open(str(path), format="g722") as container:
        stream = container.streams.audio[0]
        blocks = [frame.to_ndarray() for frame in container.decode(stream)]
        return np.concatenate(blocks, axis=1)[0].astype(np.float32) / 32768, stream.rate
