"""Named protocols: the field's evaluators, each with its own idea of ends, sampling and thresholds, one file each.

The first sentence of each module says whose evaluator it reproduces. All of them read the same truth lines and the same
predictions; what a protocol converts, it converts inside.
"""

from stvg_lightning.evaluation.protocols.protocol import EvaluationProtocol, load_protocol, protocol_names

__all__ = ["EvaluationProtocol", "load_protocol", "protocol_names"]
