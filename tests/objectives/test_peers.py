"""Our losses against those of TRL 1.16.0 and tunix 0.1.7 themselves, on random numbers: values and gradients.

Where the two disagree the test asserts by how much, and its docstring says why ours is as it is. The peers are not
needed for anything else: `pip install rlhf_jax[peers]`, or `pip install --no-deps trl==1.16.0 google-tunix==0.1.7`.
"""

import ast
import collections
import importlib
import importlib.util
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax import objectives as O
from rlhf_jax.algorithms import kto
from rlhf_jax.objectives import (
  bco_loss,
  cispo_objective,
  dpo_loss,
  dual_clip_objective,
  gae,
  generalized_jsd_loss,
  group_normalize,
  ipo_loss,
  kl_estimate,
  kto_loss,
  leave_one_out,
  orpo_loss,
  ppo_policy_objective,
  sapo_objective,
  sequence_ratio_objective,
  simpo_loss,
  token_entropy,
  value_loss,
)
from rlhf_jax.reduce import constant_weights, per_token, sequence_weights, token_weights, weighted_sum, whiten

N, T, LENGTH = 8, 6, 10  # pairs or sequences, tokens, the budget of the constant normalisation
LENGTHS = np.array([6, 1, 3, 5, 2, 4, 6, 2])
MASK = np.arange(T) < LENGTHS[:, None]


def logprobs(seed, spread=1.0):
  return -np.abs(np.random.default_rng(seed).normal(0, spread, (N, T))).astype(np.float32)


LOGP, OLD, REF = logprobs(0), logprobs(0) + logprobs(1, 0.2) + 0.15, logprobs(2)
ADVANTAGES = np.random.default_rng(3).normal(size=N).astype(np.float32)


def sums(x, mask=MASK):
  return (x * mask).sum(axis=1)


@pytest.fixture(scope="module")
def trl():
  """`trl(module)` imports one."""
  for name in ("torch", "transformers", "accelerate", "trl"):
    pytest.importorskip(name, reason="TRL is a peer to compare with: pip install rlhf_jax[peers]")
  return lambda module: importlib.import_module(f"trl.{module}")


class Accelerator:
  """One process: to gather and to reduce is to return."""

  device = "cpu"
  num_processes = 1
  gather = staticmethod(lambda x: x)
  gather_for_metrics = staticmethod(lambda x: x)
  reduce = staticmethod(lambda x, reduction: x)


def trainer(**settings):
  """What TRL's loss methods read of their trainer."""
  metrics = collections.defaultdict(lambda: collections.defaultdict(list))
  model = SimpleNamespace(training=False)
  return SimpleNamespace(
    model=model, accelerator=Accelerator, _metrics=metrics, aux_loss_enabled=False, _total_train_tokens=0, **settings
  )


def backward(loss_of, *arrays):
  """A torch loss and its gradients in float32 arrays."""
  import torch

  tensors = [torch.tensor(np.asarray(x), requires_grad=True) for x in arrays]
  loss = loss_of(*tensors)
  loss.backward()
  return float(loss.detach()), *(tensor.grad.numpy() for tensor in tensors)


def ours(loss_of, *arrays):
  """A JAX loss and its gradients."""
  value, grads = jax.jit(jax.value_and_grad(loss_of, argnums=tuple(range(len(arrays)))))(*arrays)
  return float(value), *grads


def assert_same(found, expected, **tolerance):
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_allclose(a, b, **{"rtol": 2e-5, "atol": 1e-6, **tolerance})


def trl_batch():
  """Prompt of one token, then T of completion, as TRL's collators make it; masks of chosen, then of rejected."""
  import torch

  mask = torch.tensor(np.concatenate([np.zeros((N, 1), bool), MASK], axis=1)).long()
  return torch, {"input_ids": torch.ones_like(mask), "attention_mask": torch.ones_like(mask), "completion_mask": mask}


LOG_SQUARES = -np.abs(np.random.default_rng(10).normal(1, 0.5, (N, T))).astype(np.float32)  # log sum_v p_v^2


def trl_model(log_probs):
  """A forward that returns these log-probs, 0 where TRL's fused head gives 0."""
  import torch

  log_probs = log_probs * torch.tensor(MASK)
  zeros = torch.zeros_like(log_probs)
  return lambda **inputs: SimpleNamespace(
    log_probs=log_probs,
    entropy=zeros,
    mean_logits=zeros,
    is_top1=zeros.bool(),
    log_sum_sq_probs=torch.tensor(LOG_SQUARES),
  )


def trl_dpo(trl, loss_type, **changes):
  module = trl("trainer.dpo_trainer")
  torch, batch = trl_batch()
  half = N // 2
  batch |= {"ref_chosen_logps": torch.tensor(sums(REF)[:half]), "ref_rejected_logps": torch.tensor(sums(REF)[half:])}
  settings = trainer(
    ld_alpha=None,
    precompute_ref_logps=True,
    f_divergence_type="reverse_kl",
    beta=0.3,
    loss_types=[loss_type],
    loss_weights=[1.0],
    **{"use_weighting": False, **changes},
  )
  return backward(lambda x: module.DPOTrainer._compute_loss(settings, trl_model(x), batch, False), LOGP)


def pairwise(loss_of, mean=False):
  """A loss of (chosen, rejected, ref_chosen, ref_rejected), the first half of the rows being chosen."""

  def loss(logp):
    logp, ref = (jnp.where(MASK, x, 0).sum(axis=1) / (LENGTHS if mean else 1) for x in (logp, REF))
    return jnp.mean(loss_of(logp[: N // 2], logp[N // 2 :], ref[: N // 2], ref[N // 2 :]))

  return loss


def test_dpo_equals_trl(trl):
  found = ours(pairwise(lambda *logps: dpo_loss(*logps, beta=0.3)), LOGP)
  assert_same(found, trl_dpo(trl, "sigmoid"))


def test_ipo_equals_trl_on_means_only(trl):
  """TRL runs IPO on means over tokens. Eq. 17 has log-probs of whole responses, and its theorem (the optimum of the
  regularised preference) is theirs; ours takes what it is given, so both can be had."""
  theirs = trl_dpo(trl, "ipo")
  assert_same(ours(pairwise(lambda *logps: ipo_loss(*logps, beta=0.3), mean=True), LOGP), theirs)
  of_sums = ours(pairwise(lambda *logps: ipo_loss(*logps, beta=0.3)), LOGP)
  assert abs(of_sums[0] - theirs[0]) > 0.1


SMOOTHED = dict(label_smoothing=0.1)
RELATIVES = {  # TRL's name -> (our function, our options, TRL's)
  "robust": (O.robust_dpo_loss, SMOOTHED, SMOOTHED),
  "hinge": (O.hinge_loss, {}, {}),
  "exo_pair": (O.exo_loss, SMOOTHED, SMOOTHED),
  "nca_pair": (O.nca_loss, {}, {}),
  "apo_zero": (O.apo_zero_loss, {}, {}),
  "apo_down": (O.apo_down_loss, {}, {}),
  "sppo_hard": (O.sppo_hard_loss, {}, {}),
  "aot": (O.aot_loss, SMOOTHED, SMOOTHED),
  "aot_unpaired": (O.aot_unpaired_loss, SMOOTHED, SMOOTHED),
  "discopop": (O.discopop_loss, dict(temperature=0.2), dict(args=SimpleNamespace(discopop_tau=0.2))),
}


@pytest.mark.parametrize("name", RELATIVES)
def test_the_relatives_of_dpo_equal_trl(trl, name):
  function, options, settings = RELATIVES[name]
  assert_same(
    ours(pairwise(lambda *logps: function(*logps, beta=0.3, **options)), LOGP), trl_dpo(trl, name, **settings)
  )


def test_bco_of_pairs_equals_trl(trl):
  """TRL has no reward shift; its sum of the two responses of a pair is not halved."""

  def both(chosen, rejected, ref_chosen, ref_rejected):
    of_rejected = bco_loss(rejected, ref_rejected, False, 0.0, beta=0.3)
    return bco_loss(chosen, ref_chosen, True, 0.0, beta=0.3) + of_rejected

  assert_same(ours(pairwise(both), LOGP), trl_dpo(trl, "bco_pair"))


def test_wpo_equals_trl(trl):
  def loss(logp):
    sum_logp = jnp.where(MASK, logp, 0).sum(axis=1)
    losses = dpo_loss(sum_logp[: N // 2], sum_logp[N // 2 :], sums(REF)[: N // 2], sums(REF)[N // 2 :], beta=0.3)
    weights = O.wpo_weights(logp, -LOG_SQUARES, MASK)
    return jnp.mean(losses * weights[: N // 2] * weights[N // 2 :])

  assert_same(ours(loss, LOGP), trl_dpo(trl, "sigmoid", use_weighting=True))


def test_dpo_on_means_equals_trls_sigmoid_norm(trl):
  found = ours(pairwise(lambda *logps: dpo_loss(*logps, beta=0.3), mean=True), LOGP)
  assert_same(found, trl_dpo(trl, "sigmoid_norm"))


@pytest.mark.parametrize("kl", [0.4, -0.4])
def test_kto_equals_trl(trl, kl):
  module = trl("trainer.kto_trainer")
  torch, batch = trl_batch()
  desirable = np.arange(N) % 3 > 0
  batch |= {"label": torch.tensor(desirable), "ref_logps": torch.tensor(sums(REF)), "ref_KL_logps": torch.zeros(N)}
  settings = trainer(
    calculate_KL=True,
    precompute_ref_logps=True,
    _compute_kl_logps=lambda model, batch: torch.full((N,), kl),
    beta=0.3,
    loss_type="kto",
    desirable_weight=1.5,
    undesirable_weight=0.5,
  )
  theirs = backward(lambda x: module.KTOTrainer._compute_loss(settings, trl_model(x), batch, False), LOGP)
  weights = dict(desirable_weight=1.5, undesirable_weight=0.5)

  def loss(logp):
    logp = jnp.where(MASK, logp, 0).sum(axis=1)
    return jnp.mean(kto_loss(logp, sums(REF), desirable, kl, beta=0.3, **weights))

  assert_same(ours(loss, LOGP), theirs)


@pytest.mark.parametrize("name", ["kto", "apo_zero"])
def test_a_step_on_unpaired_rows_equals_trl(trl, name):
  """The stage's own loss and baseline z, of mismatched log-probs, beside TRL's step; batches of both kinds."""
  module = trl("trainer.kto_trainer")
  torch, batch = trl_batch()
  desirable = np.arange(N) % 3 > 0
  mismatched, ref_mismatched = np.random.default_rng(9).normal(-3, 1, (2, N)).astype(np.float32)
  batch |= {"label": torch.tensor(desirable), "ref_logps": torch.tensor(sums(REF))}
  settings = trainer(
    calculate_KL=name == "kto",
    precompute_ref_logps=True,
    _compute_kl_logps=lambda model, batch: torch.tensor(mismatched),
    beta=0.3,
    loss_type={"kto": "kto", "apo_zero": "apo_zero_unpaired"}[name],
    desirable_weight=1.5,
    undesirable_weight=0.5,
  )
  batch["ref_KL_logps"] = torch.tensor(ref_mismatched)
  theirs = backward(lambda x: module.KTOTrainer._compute_loss(settings, trl_model(x), batch, False), LOGP)
  loss_settings = kto.Loss(name, 0.3, desirable_weight=1.5, undesirable_weight=0.5)
  rows = (None, MASK, ref_mismatched, desirable)
  z = kto.make_baseline(lambda *rows: mismatched, loss_settings)(None, *rows) if name == "kto" else 0.0
  labelled = kto.Labelled(np.ones((N, T), np.int32), MASK, desirable, sums(REF), np.full(N, z, np.float32))
  apply = lambda logp, tokens: jnp.stack([jnp.log(-jnp.expm1(logp)), logp], axis=-1)  # noqa: E731
  loss_fn = kto.make_loss(apply, loss_settings)
  assert_same(ours(lambda logp: loss_fn(logp, labelled, np.full(N, 1 / N, np.float32))[0], LOGP), theirs)


def test_orpo_and_simpo_equal_trl(trl):
  means = sums(LOGP) / LENGTHS
  chosen, rejected = means[: N // 2], means[N // 2 :]
  orpo = trl("experimental.orpo.orpo_trainer").ORPOTrainer
  # TRL's method is beta log sigmoid(log odds ratio); the NLL of the chosen is subtracted from it by its caller.
  theirs = backward(lambda c, r: (-c - orpo.odds_ratio_loss(trainer(beta=0.3), c, r)[0]).sum(), chosen, rejected)
  assert_same(ours(lambda c, r: orpo_loss(c, r, beta=0.3).sum(), chosen, rejected), theirs, rtol=1e-4)
  cpo = trl("experimental.cpo.cpo_trainer").CPOTrainer
  settings = trainer(beta=2.0, simpo_gamma=0.5, alpha=0.0, loss_type="simpo", label_smoothing=0.0)
  theirs = backward(lambda c, r: cpo.cpo_loss(settings, c, r)[0].sum(), chosen, rejected)
  assert_same(ours(lambda c, r: simpo_loss(c, r, beta=2.0, margin=0.5).sum(), chosen, rejected), theirs)


def trl_grpo(trl, mask=MASK, **changes):
  import torch

  module = trl("trainer.grpo_trainer")
  defaults = dict(
    top_entropy_quantile=1.0,
    off_policy_mask_threshold=None,
    importance_sampling_level="token",
    beta=0.1,
    args=SimpleNamespace(use_bias_correction_kl=False, delta=None),
    loss_type="grpo",
    epsilon_low=0.1,
    epsilon_high=0.3,
    use_vllm=False,
    max_completion_length=LENGTH,
    _entropy_bonus_enabled=False,
  )
  completion = torch.tensor(mask).long()
  inputs = {"prompt_ids": completion[:, :1], "prompt_mask": completion[:, :1], "completion_ids": completion}
  inputs |= {"completion_mask": completion, "advantages": torch.tensor(ADVANTAGES)}
  inputs |= {"old_per_token_logps": torch.tensor(OLD), "ref_per_token_logps": torch.tensor(REF)}
  inputs |= {"num_items_in_batch": completion.sum()}

  def loss_of(logp):
    settings = trainer(**{**defaults, **changes})
    settings._get_per_token_logps_and_entropies = lambda *args, **kwargs: (logp, torch.zeros_like(logp), None)
    return module.GRPOTrainer._compute_loss(settings, None, inputs)

  return backward(loss_of, LOGP)


def our_grpo(weights, *, ratio="token", beta=0.1, mask=MASK, clip=(0.1, 0.3)):
  def loss(logp):
    if ratio == "sequence":
      objective, _ = sequence_ratio_objective(logp, OLD, ADVANTAGES, mask, clip=clip)
    else:
      objective, _ = ppo_policy_objective(logp, OLD, per_token(ADVANTAGES, LOGP), clip=clip, mask=mask)
    return weighted_sum(beta * kl_estimate(logp, REF, kind="k3", mask=mask) - objective, weights)

  return ours(loss, LOGP)


WEIGHTS = {
  "grpo": sequence_weights,
  "bnpo": token_weights,
  "dr_grpo": lambda mask: constant_weights(mask, LENGTH),
}


@pytest.mark.parametrize("ratio", ["token", "sequence"])
@pytest.mark.parametrize("loss_type", WEIGHTS)
def test_grpo_and_its_variants_equal_trl(trl, loss_type, ratio):
  """Asymmetric clip, k3 as a loss, three normalisations, a ratio for each token or for the sequence (GSPO)."""
  theirs = trl_grpo(trl, loss_type=loss_type, importance_sampling_level=ratio)
  assert_same(our_grpo(WEIGHTS[loss_type](MASK), ratio=ratio), theirs)


def test_an_empty_response_counts_in_trls_mean_over_sequences(trl):
  """TRL's mean over sequences counts a response without a token as a loss of 0, which shrinks all other losses.
  Ours weighs sequences with a token alone: the weights sum to one, however the batch is filled up."""
  mask = MASK & (np.arange(N) != 2)[:, None]
  theirs, found = trl_grpo(trl, mask), our_grpo(sequence_weights(mask), mask=mask)
  assert_same([x * (N - 1) / N for x in found], theirs)


@pytest.mark.parametrize(
  "objective, settings",
  [
    (lambda *a, **kw: dual_clip_objective(*a, clip=(0.1, 0.3), bound=1.5, **kw)[0], dict(delta=1.5)),
    (lambda *a, **kw: cispo_objective(*a, clip=(1.0, 0.2), **kw)[0], dict(loss_type="cispo", epsilon_high=1.2)),
    (sapo_objective, dict(loss_type="sapo", sapo_temperature_pos=1.0, sapo_temperature_neg=1.05)),
  ],
  ids=("dual clip", "CISPO", "SAPO"),
)
def test_variants_of_the_surrogate_equal_trl(trl, objective, settings):
  """A mean over sequences, but for CISPO's over tokens."""
  args = {"use_bias_correction_kl": False, "delta": None} | {
    name: value for name, value in settings.items() if name.startswith(("sapo", "delta"))
  }
  theirs = trl_grpo(trl, args=SimpleNamespace(**args), **{k: v for k, v in settings.items() if k not in args})
  weights = (token_weights if settings.get("loss_type") == "cispo" else sequence_weights)(MASK)

  def loss(logp):
    gain = objective(logp, OLD, per_token(ADVANTAGES, LOGP), mask=MASK)
    return weighted_sum(0.1 * kl_estimate(logp, REF, kind="k3", mask=MASK) - gain, weights)

  assert_same(ours(loss, LOGP), theirs)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_distillation_equals_trl(trl, beta):
  import torch

  module = trl("experimental.gkd.gkd_trainer")
  student, teacher = np.random.default_rng(7).normal(0, 2, (2, N, T, 5)).astype(np.float32)
  labels = torch.where(torch.tensor(MASK), 0, -100)

  def theirs(logits):
    return module.GKDTrainer.generalized_jsd_loss(logits, torch.tensor(teacher), labels=labels, beta=beta)

  def loss(logits):
    return weighted_sum(generalized_jsd_loss(logits, teacher, beta=beta, mask=MASK), token_weights(MASK))

  assert_same(ours(loss, student), backward(theirs, student))


def test_rloo_equals_trl(trl):
  """One ratio for the whole response: the product over its tokens."""
  import torch

  module = trl("trainer.rloo_trainer")
  completion = torch.tensor(MASK).long()
  inputs = {"prompt_ids": completion[:, :1], "prompt_mask": completion[:, :1], "completion_ids": completion}
  inputs |= {"completion_mask": completion, "advantages": torch.tensor(ADVANTAGES)}
  inputs |= {"old_logps": torch.tensor(sums(OLD))}

  def loss_of(logp):
    settings = trainer(epsilon_low=0.2, epsilon_high=0.2)
    settings._get_per_token_logps_and_entropies = lambda *args, **kwargs: (logp, torch.zeros_like(logp), None)
    return module.RLOOTrainer._compute_loss(settings, None, inputs)

  def loss(logp):
    objective, _ = ppo_policy_objective(jnp.where(MASK, logp, 0).sum(axis=1), sums(OLD), ADVANTAGES, clip=0.2)
    return -jnp.mean(objective)

  assert_same(ours(loss, LOGP), backward(loss_of, LOGP))


@pytest.fixture(scope="module")
def tunix():
  """`tunix(module)` imports one, without the package's __init__, which imports every trainer and sampler it has."""
  spec = importlib.util.find_spec("tunix")
  if spec is None:
    pytest.skip("tunix is a peer to compare with: pip install rlhf_jax[peers]")
  package = types.ModuleType("tunix")
  package.__path__, package.__spec__ = list(spec.submodule_search_locations), spec
  before = sys.modules.get("tunix")
  sys.modules["tunix"] = package

  def load(module):
    try:
      return importlib.import_module(f"tunix.{module}")
    except ModuleNotFoundError as error:
      pytest.skip(f"tunix.{module} needs {error.name}: pip install rlhf_jax[peers]")

  yield load
  for name in [name for name in sys.modules if name.split(".")[0] == "tunix"]:
    del sys.modules[name]
  if before is not None:
    sys.modules["tunix"] = before


def test_kl_estimates_and_entropy_equal_tunix(tunix):
  common, core = tunix("rl.common"), tunix("rl.algo_core")
  for kind, name in (("k1", "kl"), ("k2", "mse_kl"), ("k3", "low_var_kl")):
    theirs = ours(lambda x, name=name: common.compute_kl_divergence(x, REF, name).sum(), LOGP)
    assert_same(ours(lambda x, kind=kind: kl_estimate(x, REF, kind=kind).sum(), LOGP), theirs)
  logits = np.random.default_rng(5).normal(0, 3, (N, T, 7)).astype(np.float32)
  np.testing.assert_allclose(token_entropy(logits), core.compute_entropy_from_logits(logits), rtol=1e-5, atol=1e-6)


@pytest.fixture
def policy_loss(tunix, monkeypatch):
  """`policy_loss(name, mask, **settings)`: a policy loss of tunix, as a function of the log-probs, and its gradient."""
  nnx = pytest.importorskip("flax.nnx")
  core = tunix("rl.algo_core")

  def evaluate(name, mask=MASK, **settings):
    advantages = ADVANTAGES[:, None] if name == "ppo_policy_loss_fn" else ADVANTAGES
    example = SimpleNamespace(
      prompt_ids=None,
      completion_ids=None,
      completion_mask=jnp.asarray(mask, jnp.float32),
      advantages=advantages,
      old_per_token_logps=OLD,
      ref_per_token_logps=REF,
    )

    def loss(logp):
      forward = lambda *args, **kwargs: (logp, jnp.zeros((N, T, 2)))  # noqa: E731
      monkeypatch.setattr(core.common, "compute_per_token_logps", forward)
      return getattr(core, name)(nnx.Module(), example, SimpleNamespace(**settings), 0, 1)[0]

    return ours(loss, LOGP)

  return evaluate


def test_ppo_equals_tunix(policy_loss):
  theirs = policy_loss("ppo_policy_loss_fn", epsilon_low=0.1, epsilon_high=0.3, entropy_coef=None)
  assert_same(our_grpo(token_weights(MASK), beta=0.0), theirs)


AGGREGATIONS = {"token-mean": token_weights, "sequence-mean-token-mean": sequence_weights}


@pytest.mark.parametrize("mode", AGGREGATIONS)
@pytest.mark.parametrize("ratio, algorithm", [("token", "grpo"), ("sequence", "gspo-token")])
def test_grpo_equals_tunix(policy_loss, mode, ratio, algorithm):
  """Empty responses too, which tunix leaves out of its mean over sequences as we do. Its gspo-token hands each token
  the gradient of its own log-prob, and ours each token that of the mean: summed over a response they are the same."""
  mask = MASK & (np.arange(N) != 2)[:, None]
  settings = dict(beta=0.1, epsilon=0.1, epsilon_high=0.3, loss_algo=algorithm, loss_agg_mode=mode, temperature=1.0)
  theirs = policy_loss("grpo_loss_fn", mask, **settings, kl_loss_mode="low_var_kl", kl_clamp_value=None)
  assert_same(our_grpo(AGGREGATIONS[mode](mask), ratio=ratio, mask=mask), theirs)


def test_nan_behind_the_end_poisons_tunix_alone(tunix):
  """tunix multiplies by the mask, and NaN * 0 is NaN; ours selects."""
  core, spoilt = tunix("rl.algo_core"), np.where(MASK, LOGP, np.nan)
  assert np.isnan(core.masked_mean(jnp.asarray(spoilt), jnp.asarray(MASK, jnp.float32)))
  clean = core.masked_mean(jnp.asarray(LOGP), MASK)
  assert float(weighted_sum(spoilt, token_weights(MASK))) == pytest.approx(float(clean), rel=1e-6)


@pytest.mark.parametrize("integers", [False, True])
def test_group_advantages_equal_tunix(tunix, integers):
  core = tunix("rl.algo_core")
  rewards = np.random.default_rng(6).normal(0, 3, 12).astype(np.float32)
  rewards = rewards.astype(np.int32) if integers else rewards
  groups = rewards.reshape(-1, 4)
  normalized, expected = group_normalize(groups, ddof=1), core.compute_advantages(rewards, 4)
  np.testing.assert_allclose(normalized.reshape(-1), expected, rtol=1e-5, atol=1e-6)
  of_others = leave_one_out(groups)
  np.testing.assert_allclose(of_others.reshape(-1), core.compute_rloo_advantages(jnp.asarray(rewards), 4), atol=1e-5)
  centred = core.compute_drgrpo_advantages(jnp.asarray(rewards), 4)
  np.testing.assert_allclose(of_others.reshape(-1) * 3 / 4, centred, atol=1e-5)


def test_groups_without_a_difference(tunix):
  """Equal rewards: tunix leaves the rounding of the mean, divided by 1e-6; ours is exactly 0. One response: tunix
  divides 0 by 0, and its RLOO returns 0 for whatever the reward is; ours is 0, and RLOO refuses to train on nothing."""
  core = tunix("rl.algo_core")
  equal = np.repeat(np.float32(np.arange(1, 50) / 10), 6)  # 49 groups of six
  assert np.abs(core.compute_advantages(equal, 6)).max() > 0.01
  np.testing.assert_array_equal(group_normalize(equal.reshape(-1, 6), ddof=1), np.zeros((49, 6)))
  with pytest.warns(RuntimeWarning):
    assert np.isnan(core.compute_advantages(np.float32([2.0]), 1)).all()
  assert group_normalize(np.float32([[2.0]]), ddof=1).tolist() == [[0.0]]
  assert core.compute_rloo_advantages(jnp.array([2.0]), 1).tolist() == [0.0]
  with pytest.raises(ValueError, match="at least 2 responses"):
    leave_one_out(np.float32([[2.0]]))


def test_gae_equals_tunix_whitened_with_ddof_1(tunix):
  """tunix whitens inside, with the unbiased variance; the variance of one token is then 0 / 0, and ours is 0."""
  core = tunix("rl.algo_core")
  rng = np.random.default_rng(7)
  values, rewards = (rng.normal(size=(N, T)).astype(np.float32) for _ in range(2))
  rewards = np.where(MASK, rewards, 0)
  theirs, returns = core.compute_gae_advantages(rewards, values, MASK.astype(np.float32), 0.9, 0.8)
  advantages = gae(rewards, values, MASK, discount=0.9, lam=0.8)
  np.testing.assert_allclose(np.where(MASK, returns, 0), np.where(MASK, advantages + values, 0), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(whiten(advantages, MASK, ddof=1), np.where(MASK, theirs, 0), rtol=1e-4, atol=1e-5)
  one = np.zeros((1, T), bool)
  one[0, 0] = True
  theirs, _ = core.compute_gae_advantages(rewards[:1], values[:1], one.astype(np.float32), 0.9, 0.8)
  assert not np.isfinite(theirs[0, 0])
  np.testing.assert_array_equal(whiten(gae(rewards[:1], values[:1], one), one, ddof=1), np.zeros((1, T)))


def test_the_value_loss_equals_tunix(tunix, monkeypatch):
  core = tunix("rl.algo_core")
  rng = np.random.default_rng(8)
  values, old, returns = (rng.normal(size=(N, T)).astype(np.float32) for _ in range(3))
  example = SimpleNamespace(
    prompt_ids=None,
    completion_ids=np.zeros((N, T), np.int32),
    completion_mask=jnp.asarray(MASK, jnp.float32),
    old_values=old,
    returns=returns,
  )

  def theirs(values):
    scores = jnp.pad(values, ((0, 0), (0, 1)))  # tunix reads the value of a token one position before it
    monkeypatch.setattr(core.common, "compute_score", lambda *args, **kwargs: scores)
    return core.ppo_value_loss_fn(None, example, 0.2, 0, 1)[0]

  def loss(values):
    return weighted_sum(value_loss(values, old, returns, clip=0.2, mask=MASK), token_weights(MASK))

  assert_same(ours(loss, values), ours(theirs, values))


@pytest.fixture
def tunix_dpo():
  """`tunix_dpo(**settings)`: tunix's DPO or ORPO, as a function of the sums of log-probs, and its gradient.

  The function alone is taken from its file, whose imports are all that a trainer with its tokenizers needs.
  """
  spec = importlib.util.find_spec("tunix")
  if spec is None:
    pytest.skip("tunix is a peer to compare with: pip install rlhf_jax[peers]")
  source = (Path(spec.submodule_search_locations[0]) / "sft" / "dpo" / "dpo_trainer.py").read_text()
  body = [x for x in ast.parse(source).body if isinstance(x, ast.FunctionDef) and x.name == "dpo_loss_fn"]
  future = ast.parse("from __future__ import annotations").body
  names = {"jax": jax, "jnp": jnp}
  exec(compile(ast.Module(future + body, []), "dpo_trainer.py", "exec"), names)
  half = N // 2
  example = SimpleNamespace(ref_chosen_logps=sums(REF)[:half], ref_rejected_logps=sums(REF)[half:])
  example.completion_mask = jnp.asarray(MASK, jnp.float32)
  for key in ("input_ids", "positions", "attention_mask", "logits_to_keep", "images"):
    setattr(example, key, None)

  def evaluate(**settings):
    def loss(logp):
      logp = jnp.where(MASK, logp, 0).sum(axis=1)
      names["compute_logps"] = lambda *args, **kwargs: (logp[:half], logp[half:])
      return names["dpo_loss_fn"](None, example, **settings)[0]

    return ours(loss, LOGP)

  return evaluate


def test_dpo_with_label_smoothing_equals_tunix(tunix_dpo):
  found = ours(pairwise(lambda *logps: dpo_loss(*logps, beta=0.3, label_smoothing=0.1)), LOGP)
  assert_same(found, tunix_dpo(beta=0.3, label_smoothing=0.1))


def test_tunix_takes_the_odds_of_orpo_on_sums(tunix_dpo):
  """The odds of a whole response vanish with its length; the paper's P(y | x) of its eq. 3 and 4 is the mean over the
  tokens, as in ours and in TRL. The supervised term, a mean, is the same in both."""
  theirs = tunix_dpo(algorithm="orpo", lambda_orpo=0.3)
  of_means = ours(pairwise(lambda c, r, *_: orpo_loss(c, r, beta=0.3), mean=True), LOGP)
  assert abs(of_means[0] - theirs[0]) > 0.01

  def on_sums(logp):
    logp = jnp.where(MASK, logp, 0).sum(axis=1)
    chosen, rejected = logp[: N // 2], logp[N // 2 :]
    return jnp.mean(chosen - chosen / LENGTHS[: N // 2] + orpo_loss(chosen, rejected, beta=0.3))

  assert_same(ours(on_sums, LOGP), theirs, rtol=1e-3)
