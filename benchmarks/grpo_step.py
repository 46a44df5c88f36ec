"""One GRPO step four ways: the prompt shared by its group, repeated in two forms, and by TRL's GRPOTrainer.

    python benchmarks/grpo_step.py                                    a table of the whole comparison, on the CPU
    python benchmarks/grpo_step.py --json                             all figures
    python benchmarks/grpo_step.py --trl-python venv_trl/bin/python   with TRL from an environment of its own
    python benchmarks/grpo_step.py --device cuda --scale 7b --num-prompts 16 --completion-tokens 200 \
        --prompt-tokens 2048 8192 --tokens-per-rollout 65536          Qwen2.5-VL-7B's shape on a GPU, in bfloat16

A Qwen2.5-VL with random weights and a LoRA adapter answers questions about videos of noise: 8 completions of 128
tokens, none of which ends early, one update with a divergence from the reference (beta 0.04).

- `shared`: the tower once a video, and each prompt once for its group; completions written as `--decoding` says.
- `repeated`: as released trainers do it. A row for each completion holds a copy of the prompt, and each copy takes its
  video through the tower in every pass: the rollout's, the reference's and the policy's.
- `repeated_text`: the same rows, with the video once through the tower, in the rollout: what is left of the difference
  where features are kept and the prompt is not.
- `trl`: TRL's GRPOTrainer. It trains on no video: it is shown as many frames as the video has steps of time, as single
  images of the same size, which makes as many visual tokens and patches. It runs the tower as it does by itself; the
  other forms attend to frames in batches.

All run the same weights and reward the same: in float32 on the CPU; on a GPU the model is in bfloat16, adapters of our
forms in float32, and every form runs under autocast to bfloat16. Each form and size has a process of its own; memory
is measured in further ones, where freed memory goes back at once. `pip install stvg-lightning[benchmark]` brings TRL.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from grpo_forms.by_trl import measure_trl
from grpo_forms.case import SCALES, Case
from grpo_forms.measuring import measure
from grpo_forms.ratios import ratios_of, table_of

from stvg_lightning.models.decoding import DECODINGS

FORMS = ("shared", "repeated_text", "repeated", "trl")
PROMPT_TOKENS = (500, 1500, 4000)


def run_case(case: Case, python: str) -> dict[str, Any]:
    """A case in a process of its own."""
    options = []
    for name, value in ((field.name, getattr(case, field.name)) for field in fields(case)):
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            options += [option] if value else []
        elif value is not None:
            options.append(f"{option}={value}")
    command, environment = [python, __file__, *options], dict(os.environ)
    if case.only_update:  # what is freed goes back to the system at once, so that the peak is what is needed
        environment |= {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit status {done.returncode}"
        return {"failed": last}
    return json.loads(done.stdout.strip().splitlines()[-1])


def measured_size(case: Case, rounds: int, forms: list[str], trl_python: str) -> dict[str, Any]:
    """All forms of one size, in turn, so that what else the machine does falls on all of them."""
    found: dict[str, list[dict[str, Any]]] = {form: [] for form in forms}
    for _ in range(rounds):
        for form in forms:
            found[form].append(run_case(replace(case, form=form), trl_python if form == "trl" else sys.executable))
    row: dict[str, Any] = {"wanted_prompt_tokens": case.prompt_tokens}
    for form in forms:
        row[form] = of_rounds(found[form])
        if runs := row[form].get("runs"):
            row[form]["seconds"] = {name: statistics.median(each[name] for each in runs) for name in runs[0]}
            if form != "trl":
                row[form]["memory"] = run_case(replace(case, form=form, only_update=True), sys.executable)
    return {**row, "ratios": ratios_of(row)}


def of_rounds(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the rounds of a form have found: the first figures that there are, the steps of all, and every failure."""
    measured = [each for each in found if "failed" not in each]
    failures = [each["failed"] for each in found if "failed" in each]
    if not measured:
        return {"failures": failures}
    return {**measured[0], "runs": [run for each in measured for run in each["runs"]], "failures": failures}


def parsed() -> argparse.Namespace:
    """What is asked for on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--form", choices=FORMS, help="measure this one alone, in this process")
    parser.add_argument("--forms", choices=FORMS, nargs="+", default=list(FORMS), help="what to compare (default: all)")
    parser.add_argument("--prompt-tokens", type=int, nargs="+", default=list(PROMPT_TOKENS))
    parser.add_argument("--num-prompts", type=int, default=1, help="questions of a step (default: 1)")
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--completion-tokens", type=int, default=128)
    parser.add_argument("--tokens-per-rollout", type=int, help="of the shared form: see GRPOSettings (default: all)")
    parser.add_argument("--tokens-per-pass", type=int, help="likewise, of its update (default: a question at a time)")
    parser.add_argument("--repeats", type=int, default=1, help="steps that count in each process (default: 1)")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each form, in turn (default: 3)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--scale", choices=tuple(SCALES), default="small")
    parser.add_argument("--decoding", choices=DECODINGS, default="auto", help="of the shared form (default: auto)")
    parser.add_argument("--keep-activations", action="store_true", help="of the large model; else they are recomputed")
    parser.add_argument("--only-update", action="store_true", help="measure the update's memory alone")
    parser.add_argument("--trl-python", default=sys.executable, help="a Python that has TRL; by default this one")
    parser.add_argument("--json", action="store_true", help="print all figures instead of the table")
    options = parser.parse_args()
    if options.only_update and options.form in (None, "trl"):
        parser.error("--only-update needs a --form, and not trl, whose update is not a part of its own")
    return options


def main() -> None:
    """Measure one case, or compare them all."""
    options = parsed()
    of_case = {field.name for field in fields(Case)} - {"form", "prompt_tokens"}
    common = {name: getattr(options, name) for name in of_case}
    if options.form:
        case = Case(options.form, options.prompt_tokens[0], **common)
        print(json.dumps(measure_trl(case) if case.form == "trl" else measure(case)))
        return
    rows = []
    for size in options.prompt_tokens:
        rows.append(measured_size(Case("shared", size, **common), options.rounds, options.forms, options.trl_python))
        print(json.dumps(rows[-1]["ratios"]), file=sys.stderr)
    device = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    report = {**dict(sorted(common.items())), "device": device, "torch": torch.__version__, "sizes": rows}
    print(json.dumps(report, indent=1) if options.json else f"{device}\n\n{table_of(rows)}")


if __name__ == "__main__":
    main()
