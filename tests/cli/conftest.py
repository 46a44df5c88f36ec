"""A whole run in miniature, made once; and commands as functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from stvg_lightning.cli.main import main

ROOT = Path(__file__).parent.parent.parent

OWN_REWARD = '''
"""A user's own reward: short answers; and, for tests, a way to be killed in the middle."""

import os
import signal

from stvg_lightning.rewards import reward


@reward
def short(answer, truth, context):
    if str(context.step) == os.environ.get("STVG_TEST_KILL_AT_STEP"):
        os.kill(os.getpid(), signal.SIGKILL)
    return max(0.0, 1 - len(answer.text) / 100)
'''

MINIATURE = """
name: miniature
runs: {runs}
model: {{name: {model}}}
video: {{fps: 2.0, min_frame_pixels: 1024, max_frame_pixels: 1024}}
rewards:
  own: {{use: "{rewards}:short", weight: 0.5}}
stages:
  shards: {{splits: {{cold_start: 8, train: 8, test: 4}}}}
  sft: {{settings: {{max_steps: 3}}, loading: {{batch_size: 4, num_workers: 0}}}}
  grpo:
    settings: {{max_rollouts: 4, group_size: 3}}
    loading: {{batch_size: 2, num_workers: 0}}
    sampling: {{max_new_tokens: 8}}
    checkpoint_every_steps: 2
  evaluate: {{max_new_tokens: 8, batch_size: 4, num_workers: 0}}
  report: {{gallery: 2}}
"""


@dataclass(frozen=True)
class Printed:
    """What a command gave back."""

    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """Its one error, the last thing that it says; a few lines at most, and no traceback."""
        _, *messages = self.err.split("stvg: error: ")
        assert self.code == 1 and len(messages) == 1, self
        assert "Traceback" not in self.err and len(messages[0].splitlines()) <= 6, self
        return messages[0]


@pytest.fixture
def stvg(capfd: pytest.CaptureFixture[str]) -> Callable[..., Printed]:
    """Run a command in this process."""

    def command(*arguments: object) -> Printed:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        return Printed(code, *capfd.readouterr())

    return command


@pytest.fixture(scope="session")
def recipe_files(random_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The quickstart and an overlay that makes it run in seconds, with a random model."""
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "my_rewards.py").write_text(OWN_REWARD)
    overlay = folder / "miniature.yaml"
    values = {"runs": folder / "runs", "model": random_model_folder, "rewards": folder / "my_rewards.py"}
    overlay.write_text(MINIATURE.format(**values))
    return ROOT / "recipes" / "quickstart.yaml", overlay


@pytest.fixture(scope="session")
def finished_run(recipe_files: tuple[Path, Path]) -> Path:
    """The folder of a finished run; tests must not change it."""
    assert main(["run", *map(str, recipe_files)]) == 0
    return recipe_files[1].parent / "runs" / "miniature"
