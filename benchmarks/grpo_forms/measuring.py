"""Seconds, memory and arithmetic of one case, in this process."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch

from grpo_forms.bench import Bench, SharedForm
from grpo_forms.case import Case
from grpo_forms.repeated import RepeatedForm
from stvg_lightning.models.decoding_prompts import prompts_in_tables
from stvg_lightning.models.flops import Work, measured_flops_per_second, shape_of, shared_work
from stvg_lightning.models.memory import bytes_of

COPIED_BYTES = {"cpu": 2**28, "cuda": 2**32}


def bench_of(case: Case) -> Bench:
    """A bench with the form that a case names."""
    bench = Bench(case)
    bench.form = SharedForm(bench) if case.form == "shared" else RepeatedForm(bench, case.form == "repeated")
    return bench


def measure(case: Case) -> dict[str, Any]:
    """Seconds of each phase, after a step that does not count; or the memory of the update."""
    bench = bench_of(case)
    found: dict[str, Any] = {"prompt_tokens": bench.prompt_tokens}
    if case.only_update:
        return {**found, **update_memory(bench)}
    for _ in range(case.repeats + 1):
        used = process_time()
        spent, features, decoding = bench.roll_out()
        rollout_used = process_time() - used
        spent |= bench.update(bench.invented_rollouts(), features)
        phases = {"step": sum(spent.values()), "rollout": sum(spent.values()) - spent["update"], **spent}
        used = process_time() - used
        phases |= {"cpu_step": used, "cpu_rollout": rollout_used, "cpu_update": used - rollout_used}
        found.setdefault("runs", []).append(phases)
    del found["runs"][0]
    found["peak_mib"] = memory_mib(case.device)
    found["decoding"] = decoding
    found["flops"] = flops_of(bench)
    found["matrix_flops_per_second"] = measured_flops_per_second(case.device, case.dtype)
    found["generate_bytes"] = generate_bytes(bench)
    found["copied_bytes_per_second"] = copied_bytes_per_second(case.device)
    return found


def update_memory(bench: Bench) -> dict[str, float]:
    """What is held before an update, and the most in it; features are made before, as in a step."""
    rollouts, device = bench.invented_rollouts(), bench.case.device
    with bench.case.autocast():
        features = bench.form.encode()
    bench.update(rollouts, features)  # what libraries hold for good from their first use on is no part of it
    held = memory_mib(device, begin=True)
    bench.update(rollouts, features)
    return {"held_mib": held, "peak_mib": memory_mib(device)}


def flops_of(bench: Bench) -> dict[str, float]:
    """Arithmetic of each phase, as this form does it; the first token's head counts with what is generated."""
    case, shape = bench.case, shape_of(bench.model.network)
    work = bench.form.work(bench.prompt_tokens, bench.patches)
    group = shared_work(bench.prompt_tokens, case.lengths)
    of_prompt = shared_work(bench.prompt_tokens, [])
    written = Work(group.tokens - of_prompt.tokens, group.pairs - of_prompt.pairs, group.scored)
    found = {
        "vision": work["vision"].forward_flops(shape),
        "prefill": Work(work["prefill"].tokens, work["prefill"].pairs).forward_flops(shape),
        "generate": written.times(case.num_prompts).forward_flops(shape),
        "update": work["update"].forward_flops(shape) + work["update"].training_flops(shape),
    }
    return {**found, "step": sum(found.values())}


def generate_bytes(bench: Bench) -> float:
    """What writing the completions must read at the least: weights, prompts' keys and values, and their own.

    Of a shared prompt they are read once a step for the whole group, of a repeated one once for each row; weights are
    read once a step for each part of the rollout.
    """
    case, network = bench.case, bench.model.network
    text = network.config.get_text_config()
    channels = text.hidden_size // text.num_attention_heads
    of_token = 2 * text.num_hidden_layers * text.num_key_value_heads * channels * case.dtype.itemsize
    prompts = case.num_prompts if case.form == "shared" else case.num_rows
    steps = case.completion_tokens - 1
    layers = bytes_of(network.model.language_model.layers.parameters())
    head = bytes_of(network.lm_head.parameters())
    own = case.num_rows * steps * (steps + 1) // 2
    parts = 1
    if case.form == "shared":
        rows = [sum(case.lengths)] * prompts
        parts = len(prompts_in_tables([bench.prompt_tokens] * prompts, rows, case.tokens_per_rollout))
    weights = parts * (steps * layers + (steps + 1) * head)
    return float(weights + of_token * (steps * prompts * bench.prompt_tokens + own))


def copied_bytes_per_second(device: str) -> float:
    """The best that one large copy reaches here, of five, reading and writing."""
    source = torch.zeros(COPIED_BYTES[device], dtype=torch.uint8, device=device)
    target, seconds = torch.zeros_like(source), []
    for _ in range(6):
        started = perf_counter()
        target.copy_(source)
        target[0].item()  # waits for a GPU
        seconds.append(perf_counter() - started)
    return 2.0 * len(source) / min(seconds[1:])


def memory_mib(device: str, begin: bool = False) -> float:
    """The most memory held since the last beginning; at a beginning, what is held then."""
    if device == "cuda":
        if begin:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated() / 2**20
    if begin:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak counts from here
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 2**10
