"""REINFORCE and PPO find `p_ref exp(score / kl_coef) / Z`, the optimum under a KL penalty, where it can be listed.

Only the policy is simplified, to a table: rollouts are sampled, and loss, experience and update are the real ones.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tabular

from rlhf_jax.algorithms import ppo, reinforce
from rlhf_jax.objectives import score_energy
from rlhf_jax.reduce import token_weights
from rlhf_jax.stage import Transport
from rlhf_jax.train.update import init_state, make_update, place

TRANSPORT = Transport("jit", 1, 1)
SIZE = 1024  # episodes of a step
REINFORCE_STEPS, GROUP = 120, 4
PPO_STEPS, EPOCHS, MINIBATCHES = 40, 4, 4
# Problem and KL coefficient. All have the same shapes, so that an algorithm is compiled once.
PROBLEMS = {
  "bandit": (tabular.bandit((0.5, 0.3, 0.2), (0, 1, 2)), 1.0),
  "tree": (tabular.tree(seed=1, stop=False), 0.5),
  "ragged": (tabular.tree(seed=2, stop=True), 0.5),
}
CLOSED_FORM = np.array([0.1790000, 0.2919435, 0.5290565])  # of the bandit, whose value is log Z
LOG_Z = 1.0272222


@functools.cache
def reinforce_trainer(baseline):
  """`train(state, problem, kl_coef, uniform[steps, SIZE, DEPTH]) -> (state, mean return of each step)`, and Adam."""
  optimizer = optax.adam(optax.linear_schedule(0.1, 0.0, REINFORCE_STEPS))

  @jax.jit
  def train(state, problem, kl_coef, uniform):
    apply = tabular.make_apply(problem)
    update = make_update(reinforce.make_loss(apply, value_coef=1.0, entropy_coef=0.0), optimizer, TRANSPORT)

    def step(state, uniform):
      rollout = tabular.sample(problem, state.params["logits"], uniform)
      logits, values = apply(state.params, rollout.tokens)
      given = state.extra
      if baseline == "greedy":  # of the likeliest response
        likeliest = tabular.sample(problem, 1e4 * state.params["logits"], uniform[:1])
        given = jnp.tile(tabular.scores(problem, likeliest.tokens), SIZE)
      experience, metrics = reinforce.make_experience(
        rollout,
        tabular.logprobs(problem, problem.reference, rollout.tokens),
        score_energy(logits, rollout.tokens, mask=rollout.mask) if baseline == "optimal_token" else values,
        tabular.scores(problem, rollout.tokens),
        given,
        kl_coef=kl_coef,
        baseline=baseline,
        samples_per_prompt=GROUP,
      )
      state, _ = update(state, experience, experience.mask / SIZE)
      mean_return = metrics["reward/return"].sum().values / SIZE
      return state.replace(extra=0.9 * state.extra + 0.1 * mean_return), mean_return

    return jax.lax.scan(step, state, uniform)

  return train, optimizer


@functools.cache
def ppo_trainer():
  """`train(state, problem, kl_coef, uniform, orders) -> (state, clip fractions[steps, updates])`, and Adam.

  orders: i32[steps, EPOCHS * MINIBATCHES, SIZE / MINIBATCHES], the rows of each update.
  """
  optimizer = optax.adam(optax.linear_schedule(0.05, 0.0, PPO_STEPS * EPOCHS * MINIBATCHES))
  config = tabular.ppo_config()

  @jax.jit
  def train(state, problem, kl_coef, uniform, orders):
    apply = tabular.make_apply(problem)
    loss_fn = ppo.make_loss(apply, clip=config.clip, value_clip=config.value_clip, value_coef=1.0, entropy_coef=0.0)
    update = make_update(loss_fn, optimizer, TRANSPORT)

    def step(state, draws):
      uniform, order = draws
      rollout = tabular.sample(problem, state.params["logits"], uniform)
      logp_ref = tabular.logprobs(problem, problem.reference, rollout.tokens)
      values = apply(state.params, rollout.tokens)[1]
      scores = tabular.scores(problem, rollout.tokens)
      experience, _ = ppo.make_experience(rollout, logp_ref, values, scores, kl_coef, config)

      def pass_over(state, rows):
        minibatch = jax.tree.map(lambda x: x[rows], experience)
        state, metrics = update(state, minibatch, token_weights(minibatch.mask))
        return state, metrics["policy/clip_fraction"].values

      return jax.lax.scan(pass_over, state, order)

    return jax.lax.scan(step, state, (uniform, orders))

  return train, optimizer


def distance(problem, table, kl_coef):
  """Total variation between a policy and the optimum."""
  return 0.5 * np.abs(tabular.distribution(problem, table) - tabular.optimum(problem, kl_coef)).sum()


def check(problem, kl_coef, params):
  assert distance(problem, problem.reference, kl_coef) > 0.2
  assert distance(problem, params["logits"], kl_coef) < 0.02
  # What serves the prompt and the padding was never touched.
  for name, table in tabular.initial(problem).items():
    np.testing.assert_array_equal(params[name][-1], table[-1])


def test_the_optimum_of_the_bandit_is_the_closed_form():
  problem, kl_coef = PROBLEMS["bandit"]
  np.testing.assert_allclose(tabular.optimum(problem, kl_coef), CLOSED_FORM, atol=1e-6)
  table = np.tile(np.log(CLOSED_FORM), (tabular.STATES + 1, 1))
  assert tabular.expected_return(problem, table, kl_coef) == pytest.approx(LOG_Z, abs=1e-6)
  assert [len(tabular.leaves(problem)) for problem, _ in PROBLEMS.values()] == [3, 27, 15]


@pytest.mark.parametrize("name", ["bandit", "tree"])
@pytest.mark.parametrize("baseline", ["none", "moving_mean", "leave_one_out", "greedy", "value", "optimal_token"])
def test_reinforce_converges_to_the_tilted_reference(baseline, name):
  problem, kl_coef = PROBLEMS[name]
  train, optimizer = reinforce_trainer(baseline)
  state = place(init_state(tabular.initial(problem), optimizer, jnp.zeros(())), TRANSPORT)
  uniform = np.random.default_rng(0).uniform(size=(REINFORCE_STEPS, SIZE, tabular.DEPTH)).astype(np.float32)
  state, returns = train(state, problem, kl_coef, uniform)
  check(problem, kl_coef, state.params)
  if name == "bandit":
    assert returns[-1] == pytest.approx(LOG_Z, abs=0.01)


@pytest.mark.parametrize("name", PROBLEMS)
def test_ppo_converges_to_the_tilted_reference(name):
  problem, kl_coef = PROBLEMS[name]
  train, optimizer = ppo_trainer()
  state = place(init_state(tabular.initial(problem), optimizer), TRANSPORT)
  rng = np.random.default_rng(0)
  uniform = rng.uniform(size=(PPO_STEPS, SIZE, tabular.DEPTH)).astype(np.float32)
  orders = rng.permuted(np.tile(np.arange(SIZE), (PPO_STEPS, EPOCHS, 1)), axis=-1)
  orders = orders.reshape(PPO_STEPS, EPOCHS * MINIBATCHES, SIZE // MINIBATCHES)
  state, clipped = train(state, problem, kl_coef, uniform, orders)
  check(problem, kl_coef, state.params)
  # On-policy at the first update of each step, and the clip is at work at later ones.
  assert clipped[:, 0].max() == 0 < clipped.mean()
