"""The forms of one GRPO step that `grpo_step.py` compares."""
