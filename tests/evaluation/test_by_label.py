"""Scores for each label: the overall score apart, by hand."""

from __future__ import annotations

from stvg_lightning.answers import choice
from stvg_lightning.evaluation import Case, score_answer
from stvg_lightning.evaluation.by_label import by_label, label_means
from stvg_lightning.evaluation.protocols import load_protocol
from stvg_lightning.tubes import Truth

QUESTIONS = [  # task, scene, and whether it is answered rightly
    ("size", "indoor", True),
    ("size", "outdoor", False),
    ("speed", "outdoor", True),
    ("speed", "outdoor", True),
    ("", "outdoor", False),
]


def truth_of(index: int, task: str, scene: str) -> Truth:
    labels = {name: value for name, value in (("Task", task), ("Scene", scene)) if value}
    return Truth(str(index), "q", 10.0, 20, 64, 48, task="choice", answer="A", labels=labels)


CASES = [
    Case(choice.read("(A)" if right else "(B)"), truth_of(index, task, scene))
    for index, (task, scene, right) in enumerate(QUESTIONS)
]


def test_accuracy_for_each_task_and_scene() -> None:
    protocols = [load_protocol("sti_bench"), load_protocol("canonical")]
    rows = {protocol.name: [protocol.row(case) for case in CASES] for protocol in protocols}
    means = label_means(protocols, rows)
    assert means["sti_bench"] == {
        "Task": {"size": {"accuracy": 0.5, "num_questions": 2}, "speed": {"accuracy": 1.0, "num_questions": 2}},
        "Scene": {
            "indoor": {"accuracy": 1.0, "num_questions": 1},
            "outdoor": {"accuracy": 0.5, "num_questions": 4},
        },
    }
    assert means["canonical"]["Scene"]["outdoor"]["accuracy"] == 0.5
    assert protocols[0].means(rows["sti_bench"]) == {"accuracy": 0.6}


def test_rows_without_labels_are_as_before() -> None:
    bare = Truth("a", "q", 10.0, 20, 64, 48, task="choice", answer="A")
    row = score_answer(choice.read("(A)"), bare)
    assert (
        "labels" not in row
        and by_label([row]) == {}
        and "labels" not in load_protocol("sti_bench").row(Case(choice.read("(A)"), bare))
    )
    assert label_means([load_protocol("sti_bench")], {"sti_bench": [row]}) == {}
