"""Published algorithms as compositions of an `Objective`'s choices.

In all equations `w_t = pi(o_t) / pi_old(o_t)`, `clip(w) = min(max(w, 1 - e_low), 1 + e_high)`, `A_i` is the
advantage of answer `i` of a group of `G` answers to one question, `|o_i|` its length in tokens, and
`J` is what is maximised; the loss is `-J`. The equations are written for one group; a batch takes the
mean over its questions. Where a rollout is used for a single optimiser step, `w_t` is 1, clipping never
acts, and the algorithms differ only in their advantages and normalisation.
"""

from __future__ import annotations

from stvg_lightning.objectives.advantages import group_centered, group_normalized
from stvg_lightning.objectives.aggregation import fixed_length_sum, sequence_mean_token_mean, token_mean
from stvg_lightning.objectives.critic import Critic
from stvg_lightning.objectives.objective import Divergence, Objective
from stvg_lightning.objectives.ratios import sequence_log_ratios, token_log_ratios
from stvg_lightning.objectives.surrogates import clipped


def grpo(
    clip_low: float | int = 0.2,
    clip_high: float | int = 0.2,
    beta: float | int = 0.04,
    divergence: Divergence = "k3",
    advantage_epsilon: float | int = 1e-4,
) -> Objective:
    """Group relative policy optimisation (DeepSeekMath, arXiv 2402.03300, equation 3; STVG-R1, equations 7 and 8).

    `A_i = (R_i - mean(R)) / (std(R) + epsilon)`

    `J = 1/G sum_i 1/|o_i| sum_t [ min(w_t A_i, clip(w_t) A_i) - beta k3_t ]`

    STVG-R1 gives neither `e` nor `beta`; 0.2 and 0.04 are the values that its released code inherits.
    """
    return Objective(
        group_normalized, token_log_ratios, clipped, sequence_mean_token_mean,
        clip_low, clip_high, beta, divergence, advantage_epsilon,
    )  # fmt: skip


def dapo(
    clip_low: float | int = 0.2,
    clip_high: float | int = 0.28,
    beta: float | int = 0.0,
    divergence: Divergence = "k3",
    advantage_epsilon: float | int = 1e-4,
) -> Objective:
    """Decoupled clip and token-level loss (DAPO, arXiv 2503.14476, equation 8).

    `A_i = (R_i - mean(R)) / (std(R) + epsilon)`

    `J = 1/(sum_i |o_i|) sum_i sum_t min(w_t A_i, clip(w_t) A_i)`, with `e_high` above `e_low`, no KL

    The token mean runs over the whole batch. DAPO's other two parts are not of the loss: resampling
    groups of equal rewards belongs to the sampler, the penalty on overlong answers to the rewards.
    """
    return Objective(
        group_normalized, token_log_ratios, clipped, token_mean,
        clip_low, clip_high, beta, divergence, advantage_epsilon,
    )  # fmt: skip


def dr_grpo(
    clip_low: float | int = 0.2,
    clip_high: float | int = 0.2,
    beta: float | int = 0.0,
    divergence: Divergence = "k3",
) -> Objective:
    """GRPO without its biases by length and by difficulty (Dr. GRPO, arXiv 2503.20783).

    `A_i = R_i - mean(R)`

    `J = 1/(G L) sum_i sum_t min(w_t A_i, clip(w_t) A_i)`, with `L` the longest answer that sampling allows

    Pass `L` as `BatchTotals.max_tokens`; otherwise the width of the mask is taken, which varies.
    """
    return Objective(
        group_centered, token_log_ratios, clipped, fixed_length_sum,
        clip_low, clip_high, beta, divergence,
    )  # fmt: skip


def gspo(
    clip_low: float | int = 3e-4,
    clip_high: float | int = 4e-4,
    beta: float | int = 0.0,
    divergence: Divergence = "k3",
    advantage_epsilon: float | int = 1e-4,
) -> Objective:
    """Group sequence policy optimisation (GSPO, arXiv 2507.18071, equations 5 to 7).

    `A_i = (R_i - mean(R)) / (std(R) + epsilon)`

    `s_i = exp(1/|o_i| sum_t log w_t)`

    `J = 1/G sum_i min(s_i A_i, clip(s_i) A_i)`, no KL

    The ratio and its clipping are of whole answers, so the range is far narrower than for tokens.
    """
    return Objective(
        group_normalized, sequence_log_ratios, clipped, sequence_mean_token_mean,
        clip_low, clip_high, beta, divergence, advantage_epsilon,
    )  # fmt: skip


def ppo(
    clip_low: float | int = 0.2,
    clip_high: float | int = 0.2,
    beta: float | int = 0.04,
    divergence: Divergence = "k3",
    critic: Critic = Critic(),
) -> Objective:
    """Proximal policy optimisation with a value head on the policy (arXiv 1707.06347, equations 7 and 9).

    `A_t` generalised advantages of the critic, whitened over the batch; groups play no part

    `J = 1/(sum_i |o_i|) sum_i sum_t [ min(w_t A_t, clip(w_t) A_t) - beta k3_t ] - c L_V`

    `L_V` is the critic's clipped value loss and `c` its weight. The KL stands in the loss, not in the reward, so that
    PPO and GRPO differ by their advantages alone; SARL-STG, which compares them, prints no settings.
    """
    return Objective(
        group_centered, token_log_ratios, clipped, token_mean,
        clip_low, clip_high, beta, divergence, critic=critic,
    )  # fmt: skip
