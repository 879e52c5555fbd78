"""A clip for each channel of a recording, for models that hear and speak at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from pipeline.items import Origin, RawClip, Reject, Segment
from pipeline.steps.read.fields import read_reject

_WHOLE = Segment(start=0.0)


def each_channel(clips: Iterable[RawClip | Reject], channels: int) -> Iterator[RawClip | Reject]:
    """`channels` clips in place of each, or as many rejects, so that positions do not depend on what can be read.

    Clips of a file have its description, and the number of their channel in the metadata as `channel`. Those whose
    record names channels itself, as Lhotse's do, are rejects.
    """
    for clip in clips:
        for channel in range(channels):
            origin = _of_channel(clip.origin, channel, channels)
            if isinstance(clip, Reject):
                yield replace(clip, origin=origin)
            elif clip.origin.segment is not None and clip.origin.segment.channels is not None:
                yield read_reject(origin, "bad_record", "names its channels itself: leave out input.split_channels")
            else:
                metadata = {**clip.description.metadata, "channel": channel}
                yield replace(
                    clip,
                    origin=origin,
                    description=replace(clip.description, metadata=metadata),
                    shares_data=clip.shares_data or channel > 0,
                )


def _of_channel(origin: Origin, channel: int, channels: int) -> Origin:
    """The origin of one channel: its key has `channel=N` in its fragment."""
    segment = replace(origin.segment or _WHOLE, channels=(channel,), file_channels=channels)
    mark = "#" if origin.segment is None else "&"
    index = origin.index * channels + channel
    return replace(origin, index=index, key=f"{origin.key}{mark}channel={channel}", segment=segment)
