"""The benchmarks that papers report on: which shards they are, whose evaluators score them, and in which order.

The first protocol is the one nearest to what the papers of the benchmark print; all of them are scored.
"""

from __future__ import annotations

from dataclasses import dataclass

from stvg_lightning.tubes import Task
from stvg_lightning.tubes.choices import check_choice

TIME_PROTOCOLS = ("time_r1", "timezero", "canonical")


@dataclass(frozen=True)
class Benchmark:
    """A test set and how it is scored.

    Attributes:
        name: as `stvg evaluate --benchmark` and the published tables call it.
        title: as papers call it.
        build: what `stvg shards build` is told, beside the places of annotations and videos.
        protocols: whose evaluators score it.
        tasks: the tasks of its questions; others in the same shards are left out.
        num_questions: how many questions papers score, where that is known: fewer are another benchmark.
    """

    name: str
    title: str
    build: str
    protocols: tuple[str, ...]
    tasks: tuple[Task, ...]
    num_questions: int | None = None

    @property
    def folder(self) -> str:
        """Where its shards are looked for."""
        return f"data_shards/{self.name}"

    @property
    def build_command(self) -> str:
        """The command that makes its shards."""
        form, *keys = self.build.split()
        places = "--annotations ANNOTATIONS --videos VIDEOS"
        return " ".join(["stvg shards build --format", form, places, "--out", self.folder, *keys])


def _temporal(name: str, title: str, build: str, num_questions: int | None = None) -> Benchmark:
    return Benchmark(name, title, build, TIME_PROTOCOLS, ("temporal",), num_questions)


def _hcstvg(version: str, split: str, num_questions: int) -> Benchmark:
    protocols = ("tubedetr_hcstvg", "cgstvg_hcstvg", "stvg_r1", "hcstvg", "canonical", "volume")
    title = f"HCSTVG-{version} {split}"
    return Benchmark(f"hcstvg_{version}", title, f"hcstvg_{version}", protocols, ("stvg",), num_questions)


def _vidstg(kind: str, num_questions: int) -> Benchmark:
    build = f"vidstg kinds={kind} crop=true trajectories=TRAJECTORIES"
    protocols = ("tubedetr_vidstg", "cgstvg_vidstg", "canonical", "volume")
    title = f"VidSTG test, {kind} sentences"
    return Benchmark(f"vidstg_{kind}", title, build, protocols, ("stvg",), num_questions)


def _refcoco(name: str, title: str, split_by: str) -> Benchmark:
    build = f"refcoco split_by={split_by} split=SPLIT"
    return Benchmark(name, title, build, ("refcoco",), ("spatial",))


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        _hcstvg("v1", "test", 1160),
        _hcstvg("v2", "val", 2000),
        _vidstg("declarative", 4610),
        _vidstg("interrogative", 5693),
        Benchmark("st_align_stvg", "ST-Align STVG", "st_align", ("llava_st", "canonical"), ("stvg",), 2000),
        Benchmark("st_align_svg", "ST-Align SVG", "st_align", ("llava_st", "canonical"), ("spatial",), 2000),
        _temporal("charades_sta", "Charades-STA test", "charades_sta", 3720),
        _temporal("activitynet", "ActivityNet Captions", "activitynet_captions"),
        _temporal("tvgbench", "TVGBench", "tvgbench", 800),
        Benchmark("mevis", "MeViS", "mevis fps=FPS", ("mevis",), ("spatial",)),
        Benchmark("sti_bench", "STI-Bench", "sti_bench", ("sti_bench",), ("choice",)),
        _refcoco("refcoco", "RefCOCO", "unc"),
        _refcoco("refcoco_plus", "RefCOCO+", "unc"),
        _refcoco("refcocog", "RefCOCOg", "umd"),
        Benchmark("v_star", "V-STaR", "v_star", ("v_star",), ("temporal", "spatial")),
    )
}


def load_benchmark(name: str) -> Benchmark:
    """The benchmark of a name.

    Raises:
        ValueError: there is none; all names are listed.

    Example:
        >>> load_benchmark("hcstvg_v2").build_command
        'stvg shards build --format hcstvg_v2 --annotations ANNOTATIONS --videos VIDEOS --out data_shards/hcstvg_v2'
    """
    check_choice("benchmark", name, BENCHMARKS)
    return BENCHMARKS[name]
