"""Read shards: any sample by its number, or all of them once an epoch, shared out among ranks and workers."""

from __future__ import annotations

import logging
import os
import tarfile
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info
from webdataset.tariterators import base_plus_ext

from stvg_lightning.data.shards.codec import BadSample, record_to_sample, record_truth
from stvg_lightning.data.shards.manifest import Manifest, ShardEntry, read_manifest
from stvg_lightning.data.video import UnreadableVideo
from stvg_lightning.tubes import Sample, Truth
from stvg_lightning.tubes.jsonl import TruthExtras

LOGGER = logging.getLogger("stvg_lightning.data")
MIN_BAD_TO_STOP = 3
MIN_SEEN_TO_STOP_EARLY = 100
NUM_NAMED = 5

Member = tuple[int, int]
"""Where a part of a sample lies in its shard: offset and size in bytes."""


class TooManyBadSamples(ValueError):
    """More bad samples than a run may skip; the message names the first of them."""


class ShardFolder:
    """The samples of a folder of shards by number, in the order in which they were written.

    Args:
        directory: a folder with a manifest.

    Raises:
        FileNotFoundError: no manifest, or a shard is missing.
        ValueError: the manifest is broken.

    Indexing a sample reads its bytes alone: the places of a shard's samples are noted once, when the
    first of them is wanted. It raises BadSample where the shard is damaged there.
    """

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        self.manifest: Manifest = read_manifest(self.directory)
        self._ends = np.cumsum([shard.num_samples for shard in self.manifest.shards])
        self._indexes: dict[int, ShardIndex] = {}

    def __len__(self) -> int:
        return self.manifest.num_samples

    def __getitem__(self, index: int) -> Sample:
        place, record = self._read_record(index)
        return record_to_sample(record, place)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def truth(self, index: int) -> Truth:
        """The truth of a sample, without reading its video or masks."""
        return self.truth_and_extras(index)[0]

    def truth_and_extras(self, index: int) -> tuple[Truth, TruthExtras]:
        """The truth of a sample, and what else its line says: categories, votes and words."""
        place, record = self._read_record(index, only=("json",))
        return record_truth(record, place)

    def without_video(self, index: int) -> Sample:
        """A sample with its masks and all that is known of it, but for its video, which is not read and left empty."""
        place, record = self._read_record(index, only=("json", "masks.json"))
        return record_to_sample(record, place, with_video=False)

    def ids(self) -> dict[int, str]:
        """Number of a sample -> its id, of all that can be read."""
        return {index: id_ for id_, index in self._index_of_id.items()}

    def of_id(self, id_: str) -> Sample:
        """The sample of an id.

        Raises:
            KeyError: no readable sample has it.
        """
        return self[self._index_of_id[id_]]

    @cached_property
    def _index_of_id(self) -> dict[str, int]:
        index_of_id = {}
        for index in range(len(self)):
            with suppress(BadSample):  # what cannot be read has no id
                index_of_id[self.truth(index).id] = index
        return index_of_id

    def _read_record(self, index: int, only: Container[str] | None = None) -> tuple[str, dict[str, Any]]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} is not one of the {len(self)} in {self.directory}")
        index %= len(self)
        number = int(np.searchsorted(self._ends, index, side="right"))
        shard = self.manifest.shards[number]
        if number not in self._indexes:
            self._indexes[number] = ShardIndex(self.directory / shard.name, shard)
        place = index - int(self._ends[number]) + shard.num_samples
        return f"{self.directory / shard.name}, number {place}", self._indexes[number].read(place, only)


class ShardIndex:
    """Where each sample of one shard lies; a damaged shard keeps the samples before the damage."""

    def __init__(self, path: Path, shard: ShardEntry) -> None:
        self._path = path
        self._samples, self._damage = _scan(path)
        if len(self._samples) > shard.num_samples:
            raise ValueError(f"{path} holds {len(self._samples)} samples, the manifest says {shard.num_samples}")

    def read(self, place: int, only: Container[str] | None = None) -> dict[str, Any]:
        """The record of the sample at a place in the shard, or some parts of it.

        Raises:
            BadSample: the shard ends, or is damaged, before the sample or inside it.
        """
        if place >= len(self._samples):
            damage = self._damage or f"it ends after {len(self._samples)} samples"
            raise BadSample(f"{self._path}, number {place}: the shard is damaged: {damage}")
        key, members = self._samples[place]
        record: dict[str, Any] = {"__key__": key}
        with self._path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            for extension, (offset, num_bytes) in members.items():
                if only is not None and extension not in only:
                    continue
                if offset + num_bytes > size:
                    raise BadSample(f"{self._path}, sample {key!r}: the shard ends inside its part {extension!r}")
                file.seek(offset)
                record[extension] = file.read(num_bytes)
        return record


class ShardStream(IterableDataset):
    """All samples of a folder of shards, each once an epoch, for a DataLoader with any number of workers.

    An epoch has one order, which seed and epoch alone decide: a full permutation. Place `i` of it
    goes to rank `i % world_size`; a rank's places go to its workers in turns of one batch
    (`set_batch_size`). Nobody shares a sample and none is left over, whatever the numbers of ranks
    and workers; ranks may differ by one sample in length.

    A bad sample (a damaged shard, a missing part, a NaN box, or a BadSample or UnreadableVideo raised
    by `transform`) is skipped and named in the log `stvg_lightning.data`.

    Args:
        directory: a folder with a manifest.
        seed: decides the order, with the epoch; at least 0.
        shuffle: without it, every epoch has the order of writing.
        max_bad_share: the share of bad samples, 0 to 1, above which the run stops.
        rank: the number of this process, below `world_size`.
        world_size: how many processes share the samples.
        transform: makes of each sample what is yielded, in the worker; without it the sample itself is.

    Raises:
        TooManyBadSamples: while iterating. One consumer's bad samples stop the run when they are at least 3
            and more than the share of what it saw (of 100, where it saw less and has more to come); at its
            end, when they are more than the share of all its samples. Fewer than 3 are then weighed against
            the whole epoch, so that one bad sample in a short part of it stops nothing.
    """

    def __init__(
        self,
        directory: Path | str,
        seed: int = 0,
        shuffle: bool = True,
        max_bad_share: float = 0.05,
        rank: int = 0,
        world_size: int = 1,
        transform: Callable[[Sample], Any] | None = None,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} must lie in 0 to world_size {world_size}, itself excluded")
        if not 0 <= max_bad_share <= 1:
            raise ValueError(f"max_bad_share must lie in 0 to 1, not {max_bad_share}")
        if seed < 0:
            raise ValueError(f"seed must be at least 0, not {seed}")
        self.folder = ShardFolder(directory)
        self._seed, self._shuffle, self._max_bad_share = seed, shuffle, max_bad_share
        self._rank, self._world_size, self._transform = rank, world_size, transform
        self._batch_size = 1
        self._chosen: NDArray[np.int64] | None = None
        # Epoch and first place, in shared memory: workers that outlive an epoch must see them change.
        self._epoch_and_start = torch.zeros(2, dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; another epoch than before begins at its first place."""
        if epoch < 0:
            raise ValueError(f"epoch must be at least 0, not {epoch}")
        if epoch != self._epoch_and_start[0]:
            self._epoch_and_start.copy_(torch.tensor([epoch, 0]))

    def start_at(self, sample_index: int) -> None:
        """Go on in the middle of the epoch.

        Args:
            sample_index: how many places of the epoch's order are done, over all ranks: the steps taken
                times batch size times `world_size`. Places count bad samples too, so after bad ones
                this repeats as many samples and loses none.
        """
        if not 0 <= sample_index <= self.num_places:
            raise ValueError(f"sample_index {sample_index} must lie in 0 to {self.num_places}")
        self._epoch_and_start[1] = sample_index

    def choose(self, indices: NDArray[np.int64] | None) -> None:
        """Go through some of the samples alone, or through all again.

        Choose before an epoch begins: workers are told when they start.

        Args:
            indices: numbers of samples, each once; None is all of them.
        """
        if indices is not None and (len(indices) == 0 or len(np.unique(indices)) < len(indices)):
            raise ValueError(f"at least one sample must be chosen, and each once; these are {len(indices)}")
        self._chosen = indices

    @property
    def num_places(self) -> int:
        """How many samples an epoch has, over all ranks."""
        return len(self.folder) if self._chosen is None else len(self._chosen)

    def set_batch_size(self, batch_size: int) -> None:
        """Tell the DataLoader's batch size: its batches then come in the epoch's order with any number of workers.

        Without it, workers alternate sample by sample; all are covered, but a DataLoader's batches mix
        otherwise, may end in several short ones, and `start_at` is exact only without workers.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self._batch_size = batch_size

    def order(self) -> NDArray[np.int64]:
        """The numbers of the samples, of all or of those that were chosen, in the order of the chosen epoch."""
        samples = np.arange(len(self.folder), dtype=np.int64) if self._chosen is None else self._chosen
        if not self._shuffle:
            return samples
        generator = np.random.default_rng([self._seed, int(self._epoch_and_start[0])])
        return samples[generator.permutation(len(samples))]

    def __len__(self) -> int:
        """How many samples this rank has still to see in the epoch, bad ones included."""
        return len(self._places())

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        return self._read(self.share_of(0, 1) if worker is None else self.share_of(worker.id, worker.num_workers))

    def share_of(self, worker: int, num_workers: int) -> NDArray[np.int64]:
        """The numbers of the samples that one of this rank's workers reads in the chosen epoch, in order."""
        places = self._places()
        turns = np.arange(len(places)) // self._batch_size
        return self.order()[places[turns % num_workers == worker]]

    def _places(self) -> NDArray[np.int64]:
        """This rank's places in the epoch's order, from the chosen start on."""
        start = int(self._epoch_and_start[1])
        first = start + (self._rank - start) % self._world_size
        return np.arange(first, self.num_places, self._world_size, dtype=np.int64)

    def _read(self, indices: NDArray[np.int64]) -> Iterator[Any]:
        bad = _BadSamples(self._max_bad_share, len(indices), self.num_places)
        for num_seen, index in enumerate(indices.tolist(), start=1):
            place = ""
            try:
                sample = self.folder[index]
                place = f"{sample.source}: "
                item = sample if self._transform is None else self._transform(sample)
            except (BadSample, UnreadableVideo) as error:
                bad.note(f"{place}{error}", num_seen)
            else:
                yield item
        bad.check_end()


class _BadSamples:
    """The bad samples that one consumer met in an epoch."""

    def __init__(self, max_share: float, num_own: int, num_epoch: int) -> None:
        self._max_share, self._num_own, self._num_epoch = max_share, num_own, num_epoch
        self._messages: list[str] = []

    def note(self, message: str, num_seen: int) -> None:
        """Log a bad sample, and stop the run where they are clearly too many."""
        self._messages.append(message)
        LOGGER.warning("bad sample %d skipped: %s", len(self._messages), message)
        seen_or_sure = max(num_seen, min(MIN_SEEN_TO_STOP_EARLY, self._num_own))
        if len(self._messages) >= MIN_BAD_TO_STOP and len(self._messages) > self._max_share * seen_or_sure:
            self._stop(num_seen)

    def check_end(self) -> None:
        """Stop the run where the whole part holds too many."""
        few = len(self._messages) < MIN_BAD_TO_STOP
        if len(self._messages) > self._max_share * (self._num_epoch if few else self._num_own):
            self._stop(self._num_own)

    def _stop(self, num_seen: int) -> NoReturn:
        named = "".join(f"\n  {message}" for message in self._messages[:NUM_NAMED])
        raise TooManyBadSamples(
            f"{len(self._messages)} of {num_seen} samples were bad, more than the allowed share of "
            f"{self._max_share:g}; the first:{named}"
        )


def _scan(path: Path) -> tuple[list[tuple[str, Mapping[str, Member]]], str | None]:
    """The samples of a tar file, and what stopped the scan before the file's end."""
    samples: list[tuple[str, Mapping[str, Member]]] = []
    members: dict[str, Member] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                key, extension = base_plus_ext(member.name)
                if key is None or not member.isfile():
                    continue
                if not samples or samples[-1][0] != key:
                    members = {}
                    samples.append((key, members))
                members[extension] = (member.offset_data, member.size)
    except tarfile.TarError as error:
        return samples, str(error)
    return samples, None
