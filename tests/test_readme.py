"""The README tells the truth: its commands parse, its files exist, its examples run."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from stvg_lightning.cli.main import _parser, main
from stvg_lightning.cli.recipe import bind_recipe, load_values
from stvg_lightning.data.shards import ShardFolder, verify, write_shards
from stvg_lightning.data.synthetic import make_sample, split_seeds

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RUN_COMMAND = "pip install -e . && stvg run recipes/quickstart.yaml"
TEST_COMMAND = 'pip install -e ".[test]" && pytest'
MADE_BY_THE_READER = {"my_recipe.yaml", "close_start.py", "truth.jsonl", "answers.jsonl", "short_answers.py"}
PLACES = ("recipes", "notebooks", "tests", "benchmarks", "data_shards", "docs", "stvg_lightning")


def code_blocks(language: str) -> list[str]:
    """The contents of the README's fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def shell_commands() -> list[str]:
    """Every whole `stvg` command of the shell blocks."""
    parts = [part.strip() for block in code_blocks("bash") for line in block.splitlines() for part in line.split("&&")]
    return [part for part in parts if part.startswith("stvg ")]


def block_after(words: str, language: str) -> str:
    """The first fenced block of a language after some words."""
    assert README.count(words) == 1, words
    found = re.search(rf"^```{language}\n(.*?)^```$", README.partition(words)[2], re.MULTILINE | re.DOTALL)
    assert found is not None, words
    return found[1]


@pytest.mark.parametrize("command", [RUN_COMMAND, TEST_COMMAND])
def test_the_two_commands_stand_alone_in_a_block(command: str) -> None:
    assert f"{command}\n" in code_blocks("bash")


@pytest.mark.parametrize("command", shell_commands())
def test_every_stvg_command_parses(command: str) -> None:
    options = _parser().parse_args(shlex.split(command)[1:])
    named = getattr(options, "recipe", None) or []
    asked = [word for word in getattr(options, "predictor", []) if word.endswith(".yaml")]
    for recipe in [*([str(named)] if isinstance(named, Path) else named), *asked]:
        file = recipe.partition("=")[0] if "=" in recipe else recipe
        assert "=" in recipe or file in MADE_BY_THE_READER or (ROOT / file).is_file(), recipe


@pytest.mark.parametrize("words", re.findall(r"^\| `(stvg [a-z]+(?: [a-z]+)?)\b", README, re.MULTILINE))
def test_every_command_of_the_table_exists(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        _parser().parse_args([*words.split()[1:], "--help"])
    assert stopped.value.code == 0
    assert "usage: stvg" in capsys.readouterr().out


def test_the_table_of_commands_is_complete() -> None:
    subparsers = next(action for action in _parser()._actions if action.dest == "command")
    assert set(subparsers.choices) == set(re.findall(r"^\| `stvg ([a-z]+)", README, re.MULTILINE))


def test_every_linked_file_exists() -> None:
    targets = re.findall(r"\]\(([^)#][^)]*)\)", README)
    missing = [target for target in targets if "://" not in target and not (ROOT / target.partition("#")[0]).exists()]
    assert not missing


def test_every_anchor_has_a_heading() -> None:
    headings = {heading.lower().replace(" ", "-") for heading in re.findall(r"^## (.+)$", README, re.MULTILINE)}
    anchors = re.findall(r"\]\(#([^)]+)\)", README)
    assert anchors and set(anchors) <= headings


def test_every_path_in_backticks_exists() -> None:
    names = [name for span in re.findall(r"`([^`\n]+)`", README) for name in span.split()]
    paths = {name for name in names if name.partition("/")[0] in PLACES and "/" in name and "*" not in name}
    # Shards of the papers' data sets are built by the reader.
    built_by_the_reader = ("data_shards/stvg/", "data_shards/mine")
    paths = {path for path in paths if not path.startswith(built_by_the_reader) and "=" not in path}
    missing = [path for path in sorted(paths) if not (ROOT / path).exists()]
    assert len(paths) > 15 and not missing


def test_the_shards_of_several_sources_are_joined_as_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seeds = list(split_seeds("train", 4))
    for name, pair in (("str_vidor", seeds[:2]), ("str_kitti", seeds[2:])):
        write_shards(map(make_sample, pair), Path("data_shards") / name, "drawn", "CC0")
    exec(block_after("To join several, write their samples into one", "python"), {})
    joined = ShardFolder(Path("data_shards/str/train"))
    assert [sample.truth for sample in joined] == [make_sample(seed).truth for seed in seeds]
    assert verify(Path("data_shards/str/train")) == ()


def test_every_recipe_has_its_row() -> None:
    table = README.partition("| recipe | what it is |")[2].partition("\n\n")[0]
    named = {name for row in table.splitlines() for name in re.findall(r"`([^`]+)`", row.partition(" | ")[0])}
    assert named == {f"recipes/{file.name}" for file in (ROOT / "recipes").glob("*.yaml")}


def test_the_own_reward_example_scores_as_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_example(tmp_path)
    monkeypatch.chdir(tmp_path)
    command = next(command for command in shell_commands() if command.startswith("stvg reward"))
    arguments = shlex.split(command.replace("recipes/", f"{ROOT}/recipes/"))[1:]
    assert main(arguments) == 0
    assert "close_start" in capsys.readouterr().out
    assert main([argument for argument in arguments if argument != "--table"]) == 0
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first["terms"] == {"temporal_iou": 1.0, "object_id": 1.0, "format": 1.0, "close_start": 1.0}
    assert second["terms"] == {"temporal_iou": 0.75, "object_id": 1.0, "format": 1.0, "close_start": 0.75}
    assert "so the new term gives it 0.75" in README


def test_the_own_recipe_example_binds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_example(tmp_path)
    (tmp_path / "my_recipe.yaml").write_text(block_after("save this as `my_recipe.yaml`", "yaml"))
    monkeypatch.chdir(tmp_path)
    recipe = bind_recipe(load_values([ROOT / "recipes" / "quickstart.yaml", Path("my_recipe.yaml")]))
    assert recipe.name == "quickstart_close_start"
    assert recipe.rewards.terms["close_start"][1] == 0.5
    assert list(recipe.rewards.terms) == ["temporal_iou", "object_id", "format", "close_start"]


def test_the_own_form_of_answer_scores_as_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_example(tmp_path)
    (tmp_path / "short_answers.py").write_text(block_after("Save this as `short_answers.py`", "python"))
    (tmp_path / "short.jsonl").write_text(block_after("in `short.jsonl`", "json"))
    monkeypatch.chdir(tmp_path)
    command = next(command for command in shell_commands() if "answer=short_answers.py" in command)
    arguments = shlex.split(command.replace("recipes/", f"{ROOT}/recipes/"))[1:]
    assert main([argument for argument in arguments if argument != "--table"]) == 0
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first["terms"] == {"temporal_iou": 0.5, "object_id": 1.0, "format": 1.0}
    assert second["terms"] == {"temporal_iou": 0.0, "object_id": 0.0, "format": 0.0}
    assert "earns 0.5 for its time, 1 for its object and 1 for its form, the second nothing" in README
    recipe = bind_recipe(load_values([ROOT / "recipes" / "quickstart.yaml"], ["answer=short_answers.py"]))
    truth = make_sample(next(iter(split_seeds("test", 1)))).truth
    answer = recipe.answer.read(recipe.answer.write(truth, "", None), None)
    assert answer.object_ids == (truth.object_id,) and answer.well_formed
    (tmp_path / "short_answers.py").write_text("def instruction(truth, view):\n    return ''\n")
    assert main(arguments) == 1
    assert "short_answers.py is no answer language: it lacks" in capsys.readouterr().err


def save_example(folder: Path) -> None:
    """Save the files of the own-reward section, as a reader would."""
    (folder / "close_start.py").write_text(block_after("Save this as `close_start.py`", "python"))
    (folder / "truth.jsonl").write_text(block_after("One question, in `truth.jsonl`", "json"))
    (folder / "answers.jsonl").write_text(block_after("in `answers.jsonl`", "json"))


def test_the_answer_shown_can_be_read() -> None:
    recipe = bind_recipe(load_values([ROOT / "recipes" / "quickstart.yaml"]))
    answer = recipe.answer.read(re.search(r"^<think>.*$", README, re.MULTILINE)[0])
    assert (answer.object_ids, answer.span_seconds, answer.well_formed) == ((3,), (1.5, 3.25), True)


def test_the_stages_told_are_those_of_the_quickstart() -> None:
    table = README.partition("| stage | what happens |")[2].partition("\n\n")[0]
    recipe = bind_recipe(load_values([ROOT / "recipes" / "quickstart.yaml"]))
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(recipe.stages)


def test_the_committed_shards_are_those_that_the_command_makes() -> None:
    directory = ROOT / "data_shards" / "synthetic"
    folder = ShardFolder(directory)
    assert verify(directory) == ()
    assert (folder.manifest.source, folder.manifest.licence) == ("synthetic world of stvg-lightning", "Apache-2.0")
    assert f"split_seeds('validation', {len(folder)})" in README and f"{len(folder)} videos" in README
    for index, seed in enumerate(split_seeds("validation", len(folder))):
        assert folder.truth(index) == make_sample(seed).truth
