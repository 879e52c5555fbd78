"""Batches of codes for training: shuffled, divided among ranks and workers, and resumed at the exact clip.

    python examples/train_dataloader.py out/demo                         # one process
    torchrun --nproc-per-node 2 examples/train_dataloader.py out/demo    # two ranks
    python examples/train_dataloader.py out/demo --steps 3 --checkpoint position.json   # 3 steps, and the next time on

Every rank takes its own clips from one permutation of the epoch, which depends on the seed and the epoch alone, and its
workers take batches in turn. So where training stands is two numbers, the epoch and the batches taken, whatever the
number of workers, and going on reads nothing twice. The codes lie in a local cache that is mapped into memory; for
datasets that are larger than the disk see `streaming` in docs/loading.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from pipeline.loading import load_codes
from pipeline.storage import StorageError

PAD = -1


class ResumableBatches(Sampler[list[int]]):
    """Positions of the clips of each batch of one rank. `state_dict` is taken between two batches of the trainer."""

    def __init__(
        self, clips: int, batch_size: int, rank: int = 0, world_size: int = 1, seed: int = 0, even: bool = True
    ):
        """With `even` every rank gets as many full batches, as distributed training needs, and at most
        `world_size * batch_size - 1` clips wait for another epoch; without it every clip comes once in each epoch."""
        self.clips, self.batch_size, self.rank, self.world_size = clips, batch_size, rank, world_size
        self.seed, self.even = seed, even
        self.epoch = 0
        self.taken = 0

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        if self.even:
            return self.clips // (self.world_size * self.batch_size)
        mine = len(range(self.rank, self.clips, self.world_size))
        return -(-mine // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        """The batches that are left of the epoch. The DataLoader asks ahead, so what is asked for is not yet taken."""
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.clips)[self.rank :: self.world_size]
        for number in range(self.taken, len(self)):
            yield order[number * self.batch_size : (number + 1) * self.batch_size].tolist()

    def step(self) -> None:
        """The trainer has used one batch."""
        self.taken += 1

    def next_epoch(self) -> None:
        self.epoch, self.taken = self.epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "taken": self.taken} | self._identity()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Raises ValueError for the state of another dataset or division: its order of clips is another."""
        for key, value in self._identity().items():
            if state[key] != value:
                raise ValueError(f"the state was taken with {key} {state[key]}, and now it is {value}")
        self.epoch, self.taken = state["epoch"], state["taken"]

    def _identity(self) -> dict[str, int]:
        names = ("clips", "batch_size", "world_size", "seed", "even")
        return {name: int(getattr(self, name)) for name in names}


def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """`codes`: int16 (batch, num_quantizers, frames of the longest), PAD behind a shorter one; `frames`: (batch,)."""
    frames = torch.tensor([row["codes"].shape[1] for row in rows])
    codes = torch.full((len(rows), len(rows[0]["codes"]), int(frames.max())), PAD, dtype=torch.int16)
    for number, row in enumerate(rows):
        codes[number, :, : frames[number]] = torch.from_numpy(row["codes"])
    return {"id": [row["id"] for row in rows], "text": [row["text"] for row in rows], "codes": codes, "frames": frames}


def make_loader(dataset: Any, batches: ResumableBatches, num_workers: int) -> DataLoader[Any]:
    return DataLoader(dataset, batch_sampler=batches, num_workers=num_workers, collate_fn=collate)


def run(arguments: argparse.Namespace) -> None:
    """Train, or what stands for it. Raises ValueError, LookupError, OSError or StorageError with what to do."""
    if arguments.batch_size < 1:
        raise ValueError(f"--batch-size {arguments.batch_size}: give 1 or more")
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    dataset = load_codes(arguments.output, arguments.split, arguments.num_quantizers)
    batches = ResumableBatches(len(dataset), arguments.batch_size, rank, world_size, even=world_size > 1)
    if not len(batches):
        raise ValueError(
            f"{arguments.output}: {len(dataset)} clips in split {arguments.split}, not enough for one batch of "
            f"{arguments.batch_size} on each of {world_size} ranks"
        )
    position = arguments.checkpoint and arguments.checkpoint.with_suffix(f".{rank}.json")
    if position and position.exists():
        try:
            batches.load_state_dict(json.loads(position.read_text()))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{position}: {error}: go on with what it was taken with, or delete it") from error

    steps = 0
    while batches.epoch < arguments.epochs and steps != arguments.steps:
        for batch in make_loader(dataset, batches, arguments.num_workers):
            # Here a trainer would move batch["codes"] to its device, with .long() for an embedding, and learn from it.
            batches.step()
            steps += 1
            print(f"rank {rank} epoch {batches.epoch} batch {batches.taken}: codes {tuple(batch['codes'].shape)}")
            if steps == arguments.steps:
                break
        if batches.taken == len(batches):
            batches.next_epoch()
        if position:
            position.write_text(json.dumps(batches.state_dict()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", help="folder or URI of a dataset of codes")
    parser.add_argument("--split", default="train")
    parser.add_argument("--num-quantizers", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--num-workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--steps", type=int, help="stop after so many batches")
    parser.add_argument("--checkpoint", type=Path, help="where the position is kept; each rank adds its number")
    arguments = parser.parse_args()
    try:
        run(arguments)
    except (ValueError, LookupError, OSError, StorageError) as error:
        print(f"train_dataloader: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
