"""What a part of a step has cost: seconds and memory."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass
from time import perf_counter

import torch


@dataclass(frozen=True)
class Cost:
    """What a discriminator has cost over some calls.

    Attributes:
        seconds: spent.
        memory_mib: what it needed, at most, beside what was held before: on a GPU exactly, on a CPU by how much the
            largest memory of the process grew, which is 0 where another part had needed more.
        num_clips: sub-clips whose boxes were asked for.
        num_new_clips: those of them that were not known before.
    """

    seconds: float = 0.0
    memory_mib: float = 0.0
    num_clips: int = 0
    num_new_clips: int = 0

    def plus(self, other: Cost) -> Cost:
        """Both, one after the other."""
        return Cost(
            seconds=self.seconds + other.seconds,
            memory_mib=max(self.memory_mib, other.memory_mib),
            num_clips=self.num_clips + other.num_clips,
            num_new_clips=self.num_new_clips + other.num_new_clips,
        )

    def per_rollout(self, num_rollouts: int) -> dict[str, float]:
        """What trainings log: seconds for each completion, memory, and the share of sub-clips that were not known."""
        return {
            "discriminator/seconds_per_rollout": self.seconds / max(num_rollouts, 1),
            "discriminator/memory_mib": self.memory_mib,
            "discriminator/new_share": self.num_new_clips / max(self.num_clips, 1),
        }


class CostWatch:
    """Measures from its making to `stop`; on a GPU it begins torch's count of the largest memory anew."""

    def __init__(self) -> None:
        self.started = perf_counter()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            self.held_mib = torch.cuda.memory_allocated() / 2**20
        else:
            self.held_mib = largest_memory_mib()

    def stop(self, num_clips: int, num_new_clips: int) -> Cost:
        """The cost of what was done meanwhile."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            peak_mib = torch.cuda.max_memory_allocated() / 2**20
        else:
            peak_mib = largest_memory_mib()
        return Cost(perf_counter() - self.started, max(peak_mib - self.held_mib, 0.0), num_clips, num_new_clips)


def clock_seconds(device: torch.device) -> float:
    """Seconds by a clock, when a GPU has done what it was asked to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return perf_counter()


class Phase:
    """The first part of some work, whose end a GPU is not waited for; it begins when a GPU has nothing left to do.

    Attributes:
        started: by `clock_seconds`.
    """

    def __init__(self, device: torch.device) -> None:
        self.started = self._ended = clock_seconds(device)
        self._marks: list[torch.cuda.Event] = []
        self._stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        self._mark()

    def end(self) -> None:
        """What is asked for from here on belongs to it no more."""
        self._ended = perf_counter()
        self._mark()

    @property
    def seconds(self) -> float:
        """That it took; a GPU that has not come to its end is waited for."""
        if not self._marks:
            return self._ended - self.started
        first, last = self._marks
        last.synchronize()
        return first.elapsed_time(last) / 1e3

    def _mark(self) -> None:
        if self._stream is not None:
            self._marks.append(self._stream.record_event(torch.cuda.Event(enable_timing=True)))


def largest_memory_mib() -> float:
    """The most memory that the process has held so far; Linux counts it in KiB, macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
