"""Lance: a dataset for each split, with a column for each RVQ layer, whose rows are found at random in constant time.

Data files are written by the library, one fragment each. The manifest of the version that holds them all is made on
local disk and stored last. It has a random name in it and the time, by Lance's own format; the data files do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import schema
from pipeline.export.config import SamplesConfig
from pipeline.export.formats.sample import Sample, Samples
from pipeline.export.part import ExportFile, by_folder
from pipeline.export.selection import Selected
from pipeline.yaml_config import ConfigError

_VERSION = "2.1"  # of the format of data files


class Lance(Samples):
    """Writes the data files of a dataset for each split, and at the end their manifest."""

    libraries = ("pylance",)

    def __init__(self, config: SamplesConfig, num_quantizers: int, code_type: pa.DataType, references: bool) -> None:
        super().__init__(config)
        try:
            import lance
            import lance.file
        except ImportError as error:
            raise ConfigError(f"export.to=lance: {error}: pip install 'moss-tok[lance]'") from error
        self._lance: Any = lance
        layers = [schema.layer_column(layer) for layer in range(num_quantizers)]
        self._layers = {
            "codes": layers,
            **({"reference": [f"reference_{name}" for name in layers]} if references else {}),
        }
        self._schema = pa.schema(
            [
                *((name, pa.string()) for name in ("id", "audio", "text", "language", "speaker_id", "metadata")),
                *(("num_frames", pa.int32()), ("duration", pa.float64())),
                *((name, pa.list_(code_type)) for names in self._layers.values() for name in names),
            ]
        )

    def entry(self, selected: Selected) -> tuple[str, Sample, int]:
        return self.group_entry([selected])

    def group_entry(self, group: Sequence[Selected]) -> tuple[str, Sample, int]:
        sample = self.sample(group)
        return f"{sample.split}/data", sample, sample.nbytes

    def files(self, stem: str, entries: list[Sample]) -> Mapping[str, bytes]:
        table = pa.Table.from_pylist([self._row(sample) for sample in entries], schema=self._schema)
        with TemporaryDirectory(prefix="moss-tok-lance-") as folder:
            path = Path(folder, "part.lance")  # the library writes to a file alone
            with self._lance.file.LanceFileWriter(str(path), self._schema, version=_VERSION) as writer:
                writer.write_batch(table)
            return {f"{stem}.lance": path.read_bytes()}

    def index(self, files: Mapping[str, ExportFile]) -> Mapping[str, bytes]:
        return {
            f"{folder.removesuffix('/data')}/{name}": data
            for folder, inside in by_folder(files).items()
            for name, data in self._version(inside)
        }

    def _row(self, sample: Sample) -> dict[str, Any]:
        row = {name: sample.metadata.get(name) for name in self._schema.names} | {"metadata": sample.metadata_json}
        for field, names in self._layers.items():
            codes: np.ndarray | None = getattr(sample, field)
            row |= {name: None if codes is None else codes[:, layer] for layer, name in enumerate(names)}
        return row

    def _version(self, files: Mapping[str, ExportFile]) -> Iterator[tuple[str, bytes]]:
        """The files that make these data files the first version of a dataset, by their paths in it."""
        # Lance numbers fields in depth first order, and stores values only of those without children.
        lists = [pa.types.is_list(field.type) for field in self._schema]
        fields = [number + sum(lists[:number]) + is_list for number, is_list in enumerate(lists)]
        major, minor = map(int, _VERSION.split("."))
        fragments = []
        for number, (name, file) in enumerate(files.items()):
            data = self._lance.fragment.DataFile(name, fields, range(len(fields)), major, minor, file["size"])
            fragments.append(self._lance.FragmentMetadata(id=number, files=[data], physical_rows=file["rows"]))
        with TemporaryDirectory(prefix="moss-tok-lance-") as folder:
            dataset = Path(folder, "dataset")
            self._lance.LanceDataset.commit(dataset, self._lance.LanceOperation.Overwrite(self._schema, fragments))
            for path in sorted(dataset.rglob("*")):
                if path.is_file():
                    yield str(path.relative_to(dataset)), path.read_bytes()
