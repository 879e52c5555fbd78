"""WebDataset: tars with a `.npy` of codes and a `.json` of metadata for each clip, as Energon reads them too.

The layout is that of github.com/webdataset/webdataset: files of a sample follow each other and share their name up to
the first dot, which the ids of clips do not have. A tar needs no library: the standard one writes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pipeline.export.formats.archive import npy, tar
from pipeline.export.formats.sample import Sample, Samples
from pipeline.export.selection import Selected

_BYTES_OF_HEADERS = 2560  # of the tar and of the array


class WebDataset(Samples):
    """Writes a folder of tars for each split."""

    def entry(self, selected: Selected) -> tuple[str, Sample, int]:
        return self.group_entry([selected])

    def group_entry(self, group: Sequence[Selected]) -> tuple[str, Sample, int]:
        sample = self.sample(group)
        return sample.split, sample, sample.nbytes + _BYTES_OF_HEADERS

    def files(self, stem: str, entries: list[Sample]) -> Mapping[str, bytes]:
        return {f"{stem}.tar": tar(member for sample in entries for member in _members(sample))}


def _members(sample: Sample) -> Iterator[tuple[str, bytes]]:
    key = sample.id
    yield f"{key}.json", sample.metadata_json.encode()
    yield f"{key}.npy", npy(sample.codes)
    if sample.reference is not None:
        yield f"{key}.reference.npy", npy(sample.reference)
