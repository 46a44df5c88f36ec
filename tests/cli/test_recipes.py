"""Recipes: all of ours bind, overlays and overrides lie on top, and whatever is wrong is named."""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import pytest
from omegaconf import OmegaConf

from stvg_lightning.answers import BoxChain, GraphAnswers, View, id_span
from stvg_lightning.cli.binding import RecipeError, bind, call_with, import_path
from stvg_lightning.cli.recipe import Recipe, bind_recipe, fingerprint, load_values, view_of, with_base
from stvg_lightning.cli.stages import Evaluate, GroupRelativePolicyOptimization, SupervisedFineTuning, SyntheticShards
from stvg_lightning.data.shards.manifest import read_manifest, write_manifest
from stvg_lightning.data.synthetic import asked_samples
from stvg_lightning.models.loading import load_encoder
from stvg_lightning.objectives import Objective, dapo
from stvg_lightning.prompting import Markers
from stvg_lightning.rewards import GraphEdges, GraphNodes, RewardContext
from stvg_lightning.tubes import Truth

ROOT = Path(__file__).parent.parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
FULL_SIZE = [
    recipe for recipe in RECIPES if recipe.stem.startswith(("stvg_r1", "stvg_o1", "sarl_stg", "tvg_r1", "video_str"))
]
QUICKSTART = ROOT / "recipes" / "quickstart.yaml"
SHARDS = ROOT / "data_shards" / "synthetic"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_binds(recipe: Path, stvg: Any) -> None:
    printed = stvg("check", recipe)
    assert printed.code == 0, printed.err
    assert printed.out.startswith(f"{recipe}: fine, stages ")


@pytest.mark.parametrize("recipe", FULL_SIZE, ids=lambda path: path.stem)
def test_with_tiny_on_top_nothing_of_full_size_is_left(recipe: Path) -> None:
    values = load_values([*with_base([recipe]), ROOT / "recipes" / "tiny.yaml"])
    bound = bind_recipe(values)
    writes_places = isinstance(bound.answer, BoxChain | GraphAnswers)
    assert bound.model.name == ("tiny_boxes" if writes_places else "tiny")
    assert bound.spatial is None or bound.spatial.name == "tiny"
    for name, stage in bound.stages.items():
        assert getattr(stage, "shards", "run/").startswith("run/"), name
        assert getattr(stage, "detector", "own") in ("own", "tiny"), name
        assert "machine" not in values["stages"][name] or stage.machine.precision == "32-true", name


def test_a_penalty_on_length_ends_where_sampling_does() -> None:
    files = [*with_base([ROOT / "recipes" / "sarl_stg_dapo.yaml"]), ROOT / "recipes" / "tiny.yaml"]
    with pytest.raises(RecipeError, match="max_new_tokens is 100, and a reward's max_tokens 112"):
        bind_recipe(load_values(files, ["stages.grpo.sampling.max_new_tokens=100"]))


def test_another_detector_in_the_same_folder_is_noticed(tmp_path: Path) -> None:
    files = [ROOT / "recipes" / name for name in ("sarl_stg.yaml", "tiny.yaml")]
    (tmp_path / "weights.safetensors").write_bytes(b"one")
    values = load_values(files, [f"stages.grpo.discriminator={tmp_path}"])
    before = {name: fingerprint(values, name) for name in ("joint", "grpo")}
    (tmp_path / "weights.safetensors").write_bytes(b"two")
    after = {name: fingerprint(values, name) for name in ("joint", "grpo")}
    assert after["grpo"] != before["grpo"] and after["joint"] == before["joint"]


def test_the_quickstart_says_what_the_paper_says() -> None:
    recipe = bind_recipe(load_values([QUICKSTART]))
    grpo = recipe.stages["grpo"]
    assert isinstance(grpo, GroupRelativePolicyOptimization) and grpo.settings.group_size == 8
    assert set(recipe.rewards.terms) == {"temporal_iou", "object_id", "format"}
    assert all(weight == 1 for _, weight in recipe.rewards.terms.values())
    assert recipe.answer is id_span and recipe.markers.theta == pytest.approx(1 / 3, abs=1e-4)
    assert list(recipe.stages) == ["shards", "sft", "grpo", "evaluate", "report"]
    assert isinstance(recipe.stages["sft"], SupervisedFineTuning) and grpo.start == "sft"
    evaluate = recipe.stages["evaluate"]
    assert isinstance(evaluate, Evaluate) and evaluate.models == ("base", "sft", "grpo")


def recipe_of(*overrides: str) -> Recipe:
    return bind_recipe(load_values([QUICKSTART], overrides))


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_overlays_lie_on_top_and_null_takes_away(tmp_path: Path) -> None:
    first = write(tmp_path, "a.yaml", "seed: 3\nstages:\n  grpo: {settings: {group_size: 4}}\n  report: null\n")
    second = write(tmp_path, "b.yaml", "seed: 4\nrewards: {format: null}\nmarkers: {kind: upper}\n")
    recipe = bind_recipe(load_values([QUICKSTART, first, second], ["name=mine", "stages.evaluate.models=[base]"]))
    assert (recipe.seed, recipe.name, recipe.markers.kind) == (4, "mine", "upper")
    assert recipe.stages["grpo"].settings.group_size == 4 and recipe.stages["grpo"].settings.max_rollouts > 4
    assert list(recipe.stages) == ["shards", "sft", "grpo", "evaluate"]
    assert set(recipe.rewards.terms) == {"temporal_iou", "object_id"}
    assert recipe.stages["evaluate"].models == ("base",)
    assert recipe.run_folder == Path("runs/mine")


def test_marked_keys_leave_a_value_without_keys_alone(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("plain: a.b\nwith_keys: {use: a.b, form: full}\nnothing: null\n")
    keys = "{form?: lines}"
    (tmp_path / "over.yaml").write_text(f"plain?: {keys}\nwith_keys?: {keys}\nnothing?: {keys}\nmissing?: {keys}\n")
    values = load_values([tmp_path / "base.yaml", tmp_path / "over.yaml"])
    assert values == {"plain": "a.b", "with_keys": {"use": "a.b", "form": "lines"}, "nothing": None}


def test_what_depends_on_the_answer_lies_over_the_rest(tmp_path: Path) -> None:
    over = write(
        tmp_path,
        "over.yaml",
        "seed: 1\nruns: all\nby_answer:\n"
        "  stvg_lightning.answers.id_span: {seed: 2, gone?: {key: 1}}\n"
        "  stvg_lightning.answers.BoxChain: {seed: 3, answer: {think: false}}\n",
    )
    for answer, seed in (
        ("stvg_lightning.answers.id_span", 2),
        ("{use: stvg_lightning.answers.BoxChain, think: true}", 3),
        ("stvg_lightning.answers.timesteps", 1),
        ("stvg_lightning.answers.box_chain.BoxChain", 3),  # spelt another way
        ("[1, 2]", 1),
    ):
        values = load_values([write(tmp_path, "base.yaml", f"answer: {answer}\nseed: 0\n"), over])
        assert values["seed"] == seed and values["runs"] == "all" and values.keys() == {"answer", "seed", "runs"}
        assert seed != 3 or "use" not in answer or values["answer"]["think"] is False


def test_an_overlay_that_sets_the_answer_counts_with_its_own(tmp_path: Path) -> None:
    parts = "{stvg_lightning.answers.id_span: {seed: 2}, stvg_lightning.answers.timesteps: {seed: 3}}"
    over = write(tmp_path, "over.yaml", f"answer: stvg_lightning.answers.timesteps\nby_answer: {parts}\n")
    assert load_values([QUICKSTART, over])["seed"] == 3


def test_a_recipe_alone_has_no_by_answer(tmp_path: Path) -> None:
    recipe = write(tmp_path, "recipe.yaml", QUICKSTART.read_text() + "\nby_answer: {}\n")
    with pytest.raises(RecipeError, match="by_answer"):
        bind_recipe(load_values([recipe]))


def test_every_answer_that_tiny_tells_apart_is_some_recipes() -> None:
    told = OmegaConf.load(ROOT / "recipes" / "tiny.yaml").by_answer
    answers = [load_values(with_base([recipe]))["answer"] for recipe in FULL_SIZE]
    assert set(told) <= {answer["use"] if isinstance(answer, dict) else answer for answer in answers}


@pytest.mark.parametrize(
    ("by_answer", "told"),
    [
        ("{stvg_lightning.answers.BoxChian: {seed: 1}}", "has no 'BoxChian'.*BoxChain"),
        ("{stvg_lightning.answers.View: {seed: 1}}", "stvg_lightning.answers.View is no answer language"),
        ("{stvg_lightning.answers.BoxChain: 3}", "by_answer: what to change is expected for each answer"),
        ("[1]", "by_answer: what to change is expected for each answer"),
    ],
)
def test_a_wrong_by_answer_is_told(tmp_path: Path, by_answer: str, told: str) -> None:
    over = write(tmp_path, "over.yaml", f"by_answer: {by_answer}\n")
    with pytest.raises(RecipeError, match=rf"over.yaml: .*{told}"):
        load_values([QUICKSTART, over])


def test_what_is_drawn_for_a_recipe_is_what_it_asks_for() -> None:
    for recipe, task in (("stvg_r1", "stvg"), ("tvg_r1", "temporal"), ("video_str", "str_questions"),
                         ("video_str_no_graph_rewards", "str_questions")):  # fmt: skip
        files = [*with_base([ROOT / "recipes" / f"{recipe}.yaml"]), ROOT / "recipes" / "tiny.yaml"]
        bound = bind_recipe(load_values(files))
        shards = bound.stages["shards"]
        assert isinstance(shards, SyntheticShards) and shards.task == task
        assert not isinstance(bound.answer, GraphAnswers) or bound.answer.form == "lines"


def test_without_numbers_the_command_of_its_header_asks_for_times(tmp_path: Path) -> None:
    recipe = ROOT / "recipes" / "stvg_r1_no_prompts.yaml"
    assert "recipes/tiny.yaml stages.shards.task=temporal" in recipe.read_text()
    files = [*with_base([recipe]), ROOT / "recipes" / "tiny.yaml"]
    task = write(tmp_path, "task.yaml", "stages: {shards: {task: temporal}}\n")
    bound = bind_recipe(load_values([*files, task]))
    shards = bound.stages["shards"]
    assert isinstance(shards, SyntheticShards) and shards.task == "temporal"
    truth = Truth(
        "a", "a man sits down", 10.0, 40, 64, 64, (0, 20), task="temporal", tracks={1: {0: (0.0, 0.0, 9.0, 9.0)}}
    )
    view = View(bound.markers.kind, is_labelled=bound.markers.draw)
    assert "number" not in bound.answer.instruction(truth, view)
    with pytest.raises(ValueError, match="none is drawn"):
        bound.answer.instruction(replace(truth, task="stvg"), view)


def test_a_term_of_length_is_not_what_tells_video_str(tmp_path: Path) -> None:
    without = write(tmp_path, "without.yaml", "rewards: {length: null}\n")
    term = "{use: stvg_lightning.rewards.LengthBonus, weight: 0.2, least_tokens: 8, most_tokens: 16}"
    with_one = write(tmp_path, "with_one.yaml", f"rewards: {{length: {term}}}\n")
    for recipe, overlay, task in (("video_str", without, "str_questions"), ("tvg_r1", with_one, "temporal")):
        files = [ROOT / "recipes" / f"{recipe}.yaml", overlay, ROOT / "recipes" / "tiny.yaml"]
        plain = bind_recipe(load_values([files[0], files[2]])).stages
        bound = bind_recipe(load_values(files)).stages
        assert isinstance(bound["shards"], SyntheticShards) and bound["shards"].task == task
        assert bound["shards"] == plain["shards"] and bound["grpo"].sampling == plain["grpo"].sampling


def test_every_reward_of_video_str_counts_in_miniature() -> None:
    """Of a gold answer all are high; a graph of wrong places, and one that is missing, each cost what they should."""
    tokenizer = load_encoder("tiny_boxes").processor.tokenizer
    mean: dict[str, dict[str, dict[str, float]]] = {}
    for recipe in ("video_str_cold_start", "video_str_relative"):
        bound = bind_recipe(
            load_values([*with_base([ROOT / "recipes" / f"{recipe}.yaml"]), ROOT / "recipes/tiny.yaml"])
        )
        shards = bound.stages["shards"]
        assert isinstance(shards, SyntheticShards)
        scores = []
        for sample in asked_samples("train", 24, 0, shards.world, shards.questions):
            view = view_of(sample.truth, bound.video, bound.markers.kind)
            gold = bound.answer.write(sample.truth, view=view)
            elsewhere = re.sub(r"(?<= )\[(\d), (\d)\](?=.*</graph>)", r"[\2, \1]", gold)
            bare = re.sub(r"<graph>.*</graph>", "<graph></graph>", gold, flags=re.DOTALL)
            texts = [gold, gold, elsewhere, bare]
            lengths = tuple(len(tokenizer(text).input_ids) + 1 for text in texts)  # and the token that ends them
            context = RewardContext(completion_tokens=lengths)
            answers = [bound.answer.read(text, view) for text in texts]
            scores.append([found.terms for found in bound.rewards.score(answers, sample.truth, context)])
        # Of one thing there is no edge; all other rewards know every question.
        have_edges = [group for group in scores if group[0]["edges"] is not None]
        assert 0.2 < len(have_edges) / len(scores) < 0.8
        assert all(value is not None for group in have_edges for terms in group for value in terms.values())
        mean[recipe] = {
            name: {term: fmean(group[place][term] for group in have_edges) for term in scores[0][0]}
            for name, place in (("gold", 0), ("elsewhere", 2), ("bare", 3))
        }
    for of_recipe in mean.values():
        assert min(of_recipe["gold"].values()) > 0.85, of_recipe["gold"]
        assert of_recipe["bare"]["nodes"] == of_recipe["bare"]["edges"] == 0.0
        assert of_recipe["bare"]["length"] < of_recipe["gold"]["length"] - 0.3
        assert of_recipe["elsewhere"]["nodes"] < of_recipe["gold"]["nodes"] - 0.1
    absolute, relative = (of_recipe["elsewhere"]["edges"] for of_recipe in mean.values())
    assert relative > 0.95 > absolute + 0.1, "places that change sides keep their distance and not their direction"


@pytest.mark.parametrize(
    ("overlay", "nodes", "edges"),
    [
        ("video_str", GraphNodes(), GraphEdges()),
        ("video_str_no_graph_rewards", None, None),
        ("video_str_relative", GraphNodes(), GraphEdges(angle="relative")),
        ("video_str_ungated", GraphNodes(gate=None), GraphEdges(gate=None)),
    ],
)
def test_video_strs_rewards(overlay: str, nodes: GraphNodes | None, edges: GraphEdges | None) -> None:
    bound = bind_recipe(load_values(with_base([ROOT / "recipes" / f"{overlay}.yaml"])))
    weights = {name: weight for name, (_, weight) in bound.rewards.terms.items()}
    graph = {} if nodes is None else {"nodes": 0.5, "edges": 0.5}
    assert weights == {"answer": 1.0, "format": 1.0, "length": 0.2} | graph
    for name, expected in (("nodes", nodes), ("edges", edges)):
        assert bound.rewards.terms.get(name, (None, 0))[0] == expected


def test_an_overlay_names_what_it_lies_over(tmp_path: Path, stvg: Any) -> None:
    write(tmp_path, "base.yaml", QUICKSTART.read_text())
    write(tmp_path, "middle.yaml", "# over: base.yaml\nname: middle\nstages: {report: null}\n")
    top = write(tmp_path, "top.yaml", "# over: middle.yaml\nseed: 5\nstages: {evaluate: null}\n")
    printed = stvg("check", top)
    assert printed.out == f"{top}: fine, stages shards, sft, grpo\n"


def test_several_recipes_are_checked_alone_or_together(tmp_path: Path, stvg: Any) -> None:
    bad = write(tmp_path, "bad.yaml", "sed: 3\n")
    printed = stvg("check", QUICKSTART, bad)
    assert printed.code == 1 and f"{QUICKSTART}: fine" in printed.out
    assert printed.err.splitlines()[-1].startswith(f"{bad}: recipe.sed: Recipe has no key 'sed': did you mean 'seed'?")
    over = write(tmp_path, "over.yaml", "seed: 3\n")
    assert stvg("check", QUICKSTART, over, "--together").out.startswith(f"{QUICKSTART} + {over}: fine")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("vidoe.fps=3", r"recipe.vidoe: Recipe has no key 'vidoe': did you mean 'video'\? \(its keys: name, model"),
        ("video.fsp=3", "recipe.video.fsp: VideoSampling has no key 'fsp': did you mean 'fps'"),
        ("stages.grpo.setings={}", "recipe.stages.grpo.setings: .* did you mean 'settings'"),
        ("stages.grpo.settings.groupsize=4", "did you mean 'group_size'"),
        ("stages.grpo.objective.betta=1", "grpo has no key 'betta': did you mean 'beta'"),
        ("rewards.object_id.presense=code", "object_id"),
        ("video.fps=fast", "recipe.video.fps: float is expected, not 'fast'"),
        ("seed=1.5", "recipe.seed: int is expected, not 1.5"),
        ("seed=true", "recipe.seed: int is expected, not True"),
        ("name=3", "recipe.name: str is expected, not 3"),
        ("video=3", "recipe.video: keys with values are expected, not 3"),
        ("stages.evaluate.models=base", "recipe.stages.evaluate.models: a list is expected, not 'base'"),
        ("markers.kind=numbr", "'numbr' is not one of number, upper, lower, mix: did you mean 'number'"),
        ("model.dtype=float16", "'float16' is not one of float32, bfloat16: did you mean 'bfloat16'"),
        ("markers.theta=2", "recipe.markers: theta must lie in"),
        ("stages.sft.loading.batch_size=0", "recipe.stages.sft.loading: batch_size 0"),
        ("stages.grpo.lora.dropout=0.1", "GRPO needs lora.dropout 0"),
        ("stages.grpo.sampling.temperature=0", "GRPO needs a temperature above 0"),
        ("stages.grpo.settings.group_size=1", "at least two answers a group, not 1"),
        ("stages.grpo.settings.max_rollouts=0", "max_rollouts must be at least 1, not 0"),
        ("stages.sft.settings.max_steps=0", "max_steps must be at least 1, not 0"),
        ("stages.grpo.start=sftt", "no stage .sftt. before it; choose from base, shards, sft"),
        ("stages.sft.start=grpo", "stages.sft.start: there is no stage 'grpo' before it"),
        ("stages.evaluate.models=[base,gropo]", "stages.evaluate.models: there is no stage 'gropo'"),
        ("stages.grpo.settings=null", "recipe.stages.grpo.settings: keys with values are expected, not None"),
        ("stages.sft.use=stvg_lightning.cli.stages.SupervisedFinetuning", "did you mean 'SupervisedFineTuning'"),
        ("stages.sft.use=stvg_lightning.cli.stagges.Evaluate", "no module 'stvg_lightning.cli.stagges.Evaluate'"),
        ("stages.sft.use=stvg_lightning.cli.stages", "is a module, which takes no keys"),
        ("stages.report.use=stvg_lightning.objectives.grpo", "Objective, not a Stage"),
        ("stages.sft.use=.stages", "no dotted path"),
        ("stages.sft.use=3", "text is expected, not 3"),
        ("stages.more={shards: a}", "recipe.stages.more: "),
        ("answer=stvg_lightning.answers.id_spam", "id_spam.*did you mean 'id_span'"),
        ("rewards.format=stvg_lightning.rewards.wellformed", "well_formed"),
        ("rewards.format.weight=heavy", "recipe.rewards.format"),
        ("seed=[1", "override 'seed=.1' cannot be read"),
        ("seed=${nothing}", "nothing"),
    ],
)
def test_what_is_wrong_is_named(override: str, message: str, stvg: Any) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe_of(override)
    printed = stvg("check", QUICKSTART, override)
    assert printed.code == 1 and printed.out == "" and len(printed.err.strip().splitlines()) <= 8


def test_missing_keys_are_named() -> None:
    with pytest.raises(RecipeError, match="recipe: Recipe needs the keys name, model, video"):
        bind_recipe({})
    values = load_values([QUICKSTART])
    del values["stages"]["sft"]["optimization"], values["stages"]["sft"]["settings"]["max_steps"]
    with pytest.raises(RecipeError, match="needs the key optimization"):
        bind_recipe(values)


def test_files_that_are_no_recipes_are_named(tmp_path: Path, stvg: Any) -> None:
    cases = {
        "gone.yaml": (None, "there is no recipe at"),
        "broken.yaml": ("a: [1, 2\nb: 3", "is not valid YAML"),
        "list.yaml": ("- a\n- b\n", "a recipe is a mapping"),
        "twice.yaml": ("seed: 1\nseed: 2\n", "twice.yaml"),
        "empty.yaml": ("", "needs the keys"),
    }
    for name, (text, message) in cases.items():
        if text is not None:
            write(tmp_path, name, text)
        printed = stvg("run", tmp_path / name)
        assert printed.code == 1 and message in printed.err and "Traceback" not in printed.err


def test_a_stage_of_a_user_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        tmp_path,
        "my_stage.py",
        "from dataclasses import dataclass\n\n@dataclass(frozen=True)\nclass Note:\n    text: str\n\n"
        "    def __call__(self, run, folder):\n        (folder / 'note.txt').write_text(self.text)\n",
    )
    monkeypatch.syspath_prepend(tmp_path)
    recipe = recipe_of("stages.note={use: my_stage.Note, text: hello}")
    assert recipe.stages["note"].text == "hello"
    with pytest.raises(RecipeError, match="Note has no key 'txet': did you mean 'text'"):
        recipe_of("stages.note={use: my_stage.Note, txet: hello}")
    file = tmp_path / "my_stage.py"
    assert recipe_of(f"stages.note={{use: '{file}:Note', text: hello}}").stages["note"].text == "hello"
    with pytest.raises(RecipeError, match=r"recipe.stages.note.use: .* there is no 'Nota'; the nearest is 'Note'"):
        recipe_of(f"stages.note={{use: '{file}:Nota', text: hello}}")


def test_values_take_the_types_that_are_asked_for() -> None:
    assert bind(float, 3, "x") == 3.0 and isinstance(bind(float, 3, "x"), float)
    assert bind(int | None, None, "x") is None
    assert bind(tuple[int, ...], [1, 2], "x") == (1, 2)
    assert bind(Literal["auto"] | int, "auto", "x") == "auto" and bind(Literal["auto"] | int, 2, "x") == 2
    assert bind(dict[str, float], {"a": 1}, "x") == {"a": 1.0}
    assert bind(Markers, {"kind": "lower"}, "x") == Markers(kind="lower")
    made = bind(Objective, {"use": "stvg_lightning.objectives.dapo", "clip_high": 0.3}, "x")
    assert made == dapo(clip_high=0.3)
    assert import_path("math.pi", "x") == math.pi and import_path("os.path", "x").sep
    with pytest.raises(RecipeError, match="is a Markers, not a Objective"):
        bind(Objective, {"use": "stvg_lightning.prompting.Markers"}, "x")
    with pytest.raises(RecipeError, match=r"x\[1\]: int is expected"):
        bind(tuple[int, ...], [1, "b"], "x")
    with pytest.raises(RecipeError, match="'roman' is not one of"):
        call_with(Markers, {"kind": "roman"}, "x")


def test_a_fingerprint_sees_what_may_change_a_stage_and_nothing_else() -> None:
    def marks(*overrides: str) -> dict[str, str]:
        values = load_values([QUICKSTART], overrides)
        return {stage: fingerprint(values, stage) for stage in values["stages"]}

    before = marks()
    assert marks("name=other", "runs=/elsewhere") == before
    later = marks("stages.grpo.settings.max_rollouts=7")
    assert [stage for stage in before if later[stage] != before[stage]] == ["grpo", "evaluate", "report"]
    assert not set(marks("seed=1").values()) & set(before.values())


def test_a_fingerprint_sees_what_a_reward_file_and_a_folder_of_shards_hold(tmp_path: Path) -> None:
    own = write(tmp_path, "own.py", "one")
    shards = tmp_path / "mine"
    shutil.copytree(SHARDS, shards)
    values = load_values([QUICKSTART], [f"rewards.own={own}:short", f"stages.grpo.shards={shards}"])

    def marks() -> list[str]:
        return [fingerprint(values, stage) for stage in ("sft", "grpo")]

    before = marks()
    assert marks() == before
    own.write_text("two")
    other_reward = marks()
    assert not set(other_reward) & set(before)
    manifest = read_manifest(shards)
    write_manifest(shards, replace(manifest, shards=(replace(manifest.shards[0], sha256="0" * 64),)))
    other_data = marks()
    assert other_data[0] == other_reward[0], "the cold start does not read these shards"
    assert other_data[1] != other_reward[1]


def test_a_fingerprint_sees_what_a_file_of_answers_holds(tmp_path: Path) -> None:
    own = write(tmp_path, "own.py", "one")
    values = load_values([QUICKSTART], [f"answer={own}"])
    before = fingerprint(values, "sft")
    own.write_text("two")
    assert fingerprint(values, "sft") != before


def test_rewards_that_the_answers_cannot_earn_are_refused_before_anything_runs(stvg: Any) -> None:
    checked = stvg("check", QUICKSTART, "rewards.spatial=stvg_lightning.rewards.BoxSpatial")
    assert checked.code == 1
    assert "recipe.rewards: reward term 'spatial' needs answers with box_lists; this language has none" in checked.err
    checked = stvg("check", ROOT / "recipes" / "stvg_o1.yaml", "answer.think=false")
    assert checked.code == 1 and "reward term 'think' needs answers with box_lists.think" in checked.err
    checked = stvg("check", QUICKSTART, "markers.draw=false")
    assert checked.code == 1 and "recipe.rewards: object_id: an object must be seen by its marker" in checked.err
    code = "rewards.object_id={use: stvg_lightning.rewards.ObjectId, presence: code}"
    assert stvg("check", QUICKSTART, "markers.draw=false", code).code == 0


def test_the_resolved_recipe_binds_again(tmp_path: Path) -> None:
    values = load_values([QUICKSTART], ["seed=3"])
    resolved = write(tmp_path, "resolved.yaml", OmegaConf.to_yaml(OmegaConf.create(values)))
    assert load_values([resolved]) == values
    assert bind_recipe(load_values([resolved])).seed == 3
