"""How many times faster and smaller the shared form of a step is than the others, and how near it is to its floors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

REPEATED = ("repeated_text", "repeated")
PHASES = ("vision", "prefill", "generate", "update", "step")
COLUMNS = {
    "update, arithmetic": "update_flops_ratio",
    "update, CPU time": "cpu_update_speed_up",
    "update, seconds": "update_speed_up",
    "vision, seconds": "vision_speed_up",
    "prefill, arithmetic": "prefill_flops_ratio",
    "prefill, seconds": "prefill_speed_up",
    "generate, seconds": "generate_speed_up",
    "step, arithmetic": "step_flops_ratio",
    "step, CPU time": "cpu_step_speed_up",
    "step, seconds": "step_speed_up",
    "update's memory, share": "update_memory_share",
    "process's memory, share": "process_memory_share",
}


def ratios_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Of the forms that were measured at one size; `shared` must be among them.

    Under the name of each other form: how many times faster `shared` is (`..._speed_up`; `cpu_...` by CPU time of the
    processes, which another process on the machine does not lengthen), how many times less arithmetic it does
    (`..._flops_ratio`), and what share of that it reached. Under `shared`: seconds over those of the same arithmetic as
    plain products of matrices, and of the same bytes as one plain copy; the share of the device's arithmetic that was
    useful, with each prompt counted once and as the repeated form counts.
    """
    if "seconds" not in row.get("shared", {}):
        return {}
    shared = row["shared"]
    found: dict[str, dict[str, float]] = {"shared": _floors(shared, row.get("repeated", {}).get("flops"))}
    for form in REPEATED:
        if "seconds" in row.get(form, {}):
            found[form] = _against(shared, row[form])
    if "seconds" in row.get("trl", {}):
        theirs, ours = row["trl"]["seconds"], shared["seconds"]
        phases = [name for name in ours if name in theirs]
        found["trl"] = {f"{phase}_speed_up": theirs[phase] / ours[phase] for phase in phases}
    for form in set(found) - {"shared"}:
        if "peak_mib" in row[form] and "peak_mib" in shared:
            found[form]["process_memory_share"] = shared["peak_mib"] / row[form]["peak_mib"]
    return {form: {name: round(value, 3) for name, value in each.items()} for form, each in found.items()}


def _against(shared: Mapping[str, Any], repeated: Mapping[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for phase in (*PHASES, "cpu_rollout", "cpu_update", "cpu_step"):
        found[f"{phase}_speed_up"] = repeated["seconds"][phase] / shared["seconds"][phase]
    for phase in PHASES:
        found[f"{phase}_flops_ratio"] = repeated["flops"][phase] / shared["flops"][phase]
        found[f"{phase}_share_of_flops_ratio"] = found[f"{phase}_speed_up"] / found[f"{phase}_flops_ratio"]
    if "peak_mib" in shared.get("memory", {}) and "peak_mib" in repeated.get("memory", {}):
        needs = [each["memory"]["peak_mib"] - each["memory"]["held_mib"] for each in (shared, repeated)]
        found["update_memory_share"] = needs[0] / needs[1]
    return found


def _floors(shared: Mapping[str, Any], repeated_flops: Mapping[str, float] | None) -> dict[str, float]:
    found: dict[str, float] = {}
    speed, spent = shared["matrix_flops_per_second"], shared["seconds"]
    for phase in PHASES:
        found[f"{phase}_seconds_over_matrix_products"] = spent[phase] * speed / shared["flops"][phase]
    floor_seconds = shared["generate_bytes"] / shared["copied_bytes_per_second"]
    found["generate_seconds_over_memory_floor"] = spent["generate"] / floor_seconds
    found["update_utilisation"] = shared["flops"]["update"] / (spent["update"] * speed)
    if repeated_flops is not None:
        found["update_utilisation_repeated"] = repeated_flops["update"] / (spent["update"] * speed)
    return found


def table_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Two tables in Markdown: the shared form against each other, and the shared form's own floors."""
    header = ["prompt tokens", "shared over", *COLUMNS]
    lines, floors, failures = [_line(header), _line(["---"] * len(header))], [], []
    for row in rows:
        size = _size(row)
        for form in ("shared", *REPEATED, "trl"):
            if form != "shared" and (values := row["ratios"].get(form)):
                cells = [f"{values[name]:.2f}" if name in values else "-" for name in COLUMNS.values()]
                lines.append(_line([size, form, *cells]))
            failures += [f"{size}, {form}: {failed}" for failed in failures_of(row.get(form, {}))]
        for name, value in row["ratios"].get("shared", {}).items():
            floors.append(_line([size, name.replace("_", " "), f"{value:.2f}"]))
        floors.append(_line([size, "completions written by", row["shared"].get("decoding", "-")]))
    floors = [_line(["prompt tokens", "shared form", "times or share"]), _line(["---"] * 3), *floors]
    return "\n".join([*lines, "", *floors, *(["", *failures] if failures else [])])


def failures_of(found: Mapping[str, Any]) -> list[str]:
    """Why rounds of a form have nothing to tell, or the measurement of its memory."""
    of_memory = found.get("memory", {})
    return [*found.get("failures", ()), *([f"memory: {of_memory['failed']}"] if "failed" in of_memory else [])]


def _size(row: Mapping[str, Any]) -> str:
    return f"{row['shared'].get('prompt_tokens', row['wanted_prompt_tokens']):,}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
