"""Known bugs as patches: each of these makes its test go red (see `mutations.py`)."""

from typing import NamedTuple


class Mutation(NamedTuple):
  """`old`, which stands in `file` of the package exactly once, becomes `new`; `test` must then fail.

  devices: simulated ones, where one does not show the bug.
  """

  name: str
  test: str
  file: str
  old: str
  new: str
  devices: int = 1


REWARDS, ENDS = "test_rewards_and_values.py::test_", "test_ends_and_padding.py::test_"
LOGPROBS, NORMAL = "test_logprobs_and_sampling.py::test_", "test_normalisation.py::test_"
KL, PACKING, RUNS, NUMERICS = (f"test_{name}.py::test_" for name in ("kl_penalty", "packing", "runs", "numerics"))
INVARIANT = "test_invariants.py::test_"

MUTATIONS = [
  # Rewards and values
  Mutation(
    "rewards of integer dtype",
    REWARDS + "rewards_keep_their_fraction_though_tokens_are_integers",
    "objectives/kl.py",
    "return -coef * select(kl, mask) + select(per_token(scores, last), last)",
    "return (-coef * select(kl, mask) + select(per_token(scores, last), last)).astype(jnp.int32)",
  ),
  Mutation(
    "scores of integer dtype",
    REWARDS + "a_reward_function_keeps_its_fraction",
    "train/functions.py",
    "scores = array.astype(np.float32)",
    "scores = array.astype(np.int32)",
  ),
  Mutation(
    "a missing-EOS score of 0 is none",
    REWARDS + "a_reward_of_zero_is_a_reward",
    "train/scores.py",
    "missing = None if missing_eos_score is None else np.float32(missing_eos_score)",
    "missing = np.float32(missing_eos_score) if missing_eos_score else None",
  ),
  Mutation(
    "a reward of 0 is none",
    REWARDS + "a_reward_of_zero_is_a_reward",
    "train/scores.py",
    "scores = jnp.where(finished, scores",
    "scores = jnp.where(finished & (scores != 0), scores",
  ),
  Mutation(
    "score at the end of the padding",
    REWARDS + "the_score_enters_once_on_the_last_response_token",
    "objectives/kl.py",
    "last = mask & (after == 1)",
    "last = jnp.arange(mask.shape[-1]) == mask.shape[-1] - 1",
  ),
  Mutation(
    "score on every token",
    REWARDS + "the_score_enters_once_on_the_last_response_token",
    "objectives/kl.py",
    "last = mask & (after == 1)",
    "last = mask & (after >= 1)",
  ),
  Mutation(
    "advantages bootstrap from padding",
    REWARDS + "nothing_is_bootstrapped_from_padding",
    "algorithms/ppo.py",
    "advantages = gae(rewards, values, mask,",
    "advantages = gae(rewards, values, jnp.ones_like(mask),",
  ),
  Mutation(
    "gae carries the masked value",
    REWARDS + "nothing_is_bootstrapped_from_padding",
    "objectives/value.py",
    """steps = [select(x, mask) for x in (rewards, values, discount, lam)]

  def step(
    carry: tuple[jax.Array, jax.Array], inputs: tuple[jax.Array, ...]
  ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    next_value, next_advantage = carry
    on, reward, value, discount, lam = inputs  # [...]
    advantage = reward + discount * next_value - value + discount * lam * next_advantage
    carry = jnp.where(on, value, next_value),""",
    """steps = [select(rewards, mask), float32(values), select(discount, mask), select(lam, mask)]

  def step(
    carry: tuple[jax.Array, jax.Array], inputs: tuple[jax.Array, ...]
  ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    next_value, next_advantage = carry
    on, reward, value, discount, lam = inputs  # [...]
    advantage = reward + discount * next_value - value + discount * lam * next_advantage
    carry = value,""",
  ),
  Mutation(
    "value loss without its half",
    REWARDS + "the_value_loss_has_its_half_and_the_mask_of_the_policy",
    "objectives/value.py",
    "return 0.5 * jnp.maximum(",
    "return jnp.maximum(",
  ),
  Mutation(
    "value loss averaged over padding too",
    REWARDS + "the_value_loss_has_its_half_and_the_mask_of_the_policy",
    "algorithms/ppo.py",
    "weighted_sum(-gain + value_coef * value_error - entropy_coef * entropy, weights)",
    "weighted_sum(-gain - entropy_coef * entropy, weights) + value_coef * jnp.mean(value_error)",
  ),
  Mutation(
    "score read at the last column",
    REWARDS + "the_reward_model_reads_the_last_token_of_the_response",
    "models/language_model.py",
    'params["head"], jnp.max(jnp.where(mask, jnp.arange(tokens.shape[1]), 0), axis=1)',
    'params["head"], jnp.full(tokens.shape[0], tokens.shape[1] - 1)',
  ),
  Mutation(
    "score read one token early",
    REWARDS + "the_reward_model_reads_the_last_token_of_the_response",
    "models/language_model.py",
    "*_causal(tokens, None), at=last)[:, 0])",
    "*_causal(tokens, None), at=last - 1)[:, 0])",
  ),
  Mutation(
    "masked by multiplication",
    REWARDS + "an_empty_response_does_not_poison_the_batch",
    "reduce.py",
    "jnp.where(jnp.asarray(mask) != 0, float32(x), 0.0)",
    "float32(x) * float32(mask)",
  ),
  Mutation(
    "variance divides by a count of 0",
    REWARDS + "the_variance_of_one_element_is_zero",
    "reduce.py",
    "_at_least_one(count - ddof)",
    "(count - ddof)",
  ),
  # End of sequence and padding
  Mutation(
    "PAD := EOS",
    ENDS + "pad_is_not_eos",
    "data/tokenizer.py",
    "pad_id=ids[found.pad],",
    "pad_id=ids[found.eos],",
  ),
  Mutation(
    "a file with PAD = EOS is accepted",
    ENDS + "pad_is_not_eos",
    "data/tokenizer.py",
    "if shared or listed.get(",
    "if False and listed.get(",
  ),
  Mutation(
    "stop token outside the loss mask",
    ENDS + "the_stop_token_is_inside_the_loss_mask",
    "data/encoding.py",
    "said = np.arange(len(response)) <= end",
    "said = np.arange(len(response)) < end",
  ),
  Mutation(
    "packing cuts the stop token off",
    ENDS + "the_stop_token_is_inside_the_loss_mask",
    "data/arrays.py",
    'packed["mask"][row, here] = arrays["mask"][index, :end]',
    'packed["mask"][row, here] = np.append(arrays["mask"][index, : end - 1], False)',
  ),
  Mutation(
    "sampled stop token outside the mask",
    ENDS + "the_sampled_stop_token_is_inside_the_mask",
    "sampling/generate.py",
    "(after < sampled.lengths[:, None])",
    "(after < (sampled.lengths - sampled.finished)[:, None])",
  ),
  Mutation(
    "first response token masked",
    ENDS + "the_first_response_token_counts_and_labels_are_shifted_once",
    "data/arrays.py",
    "mask[row, len(prompt) : len(prompt) + len(response)] = said",
    "mask[row, len(prompt) + 1 : len(prompt) + len(response)] = said[1:]",
  ),
  Mutation(
    "labels shifted twice",
    ENDS + "the_first_response_token_counts_and_labels_are_shifted_once",
    "algorithms/sft.py",
    "error = lm_loss(logits,",
    "error = lm_loss(jax.numpy.roll(logits, 1, axis=1),",
  ),
  Mutation(
    "padded on the left",
    ENDS + "positions_do_not_depend_on_padding",
    "data/arrays.py",
    "tokens[index, : len(row)] = row",
    "tokens[index, length - len(row) :] = row",
  ),
  Mutation(
    "positions count the padding",
    ENDS + "positions_do_not_depend_on_padding",
    "sampling/generate.py",
    "slots.token[:, None], place[:, None], state.cache)",
    "slots.token[:, None], (inputs.prompts.tokens.shape[1] + slots.num_sampled - 1)[:, None], state.cache)",
  ),
  Mutation(
    "attention without its mask",
    ENDS + "padding_is_not_attended_to",
    "models/attention.py",
    "scores = jnp.where(visible[:, None, None], scores, -1e30)",
    "scores = scores + 0 * visible[:, None, None]",
  ),
  Mutation(
    "the cache shows the padding of prompts",
    ENDS + "padding_is_not_attended_to",
    "models/language_model.py",
    "<= positions[..., None]  # [B, S, U]",
    "<= jnp.max(positions) + 0 * positions[..., None]  # [B, S, U]",
  ),
  Mutation(
    "a conversation tokenised in one piece",
    ENDS + "training_sees_the_boundary_that_sampling_makes",
    "data/encoding.py",
    "      response, starts = _tokenise_after(tokenizer, Text(whole.text[start:], whole.guard, ()))\n",
    "      start_ids, response, starts = response, [tokenizer.eos_id], None\n",
  ),
  Mutation(
    "the tokens of a conversation cut at the number of its prompt's",
    ENDS + "training_sees_the_boundary_that_sampling_makes",
    "data/encoding.py",
    "if not apart and response[: len(start_ids)] == start_ids:",
    "if not apart:",
  ),
  Mutation(
    "a mask of all ones",
    ENDS + "a_mask_is_never_silently_all_ones_or_all_zeros",
    "data/arrays.py",
    "mask = np.zeros(tokens.shape, bool)\n  for row, (prompt, response, said) in enumerate(rows):",
    "mask = np.ones(tokens.shape, bool)\n  for row, (prompt, response, said) in enumerate(rows):",
  ),
  Mutation(
    "a mean over nothing is 0",
    ENDS + "a_mask_is_never_silently_all_ones_or_all_zeros",
    "types.py",
    'else float("nan")',
    "else 0.0",
  ),
  Mutation(
    "the end of a response cut off",
    ENDS + "nothing_is_truncated",
    "data/arrays.py",
    "    if isinstance(found, str) or len(found.prompt) + len(found.response) > length:\n"
    "      skips[found if isinstance(found, str) else too_long(length)] += 1\n    else:\n      rows.append(found)",
    "    cut = slice(length - len(found.prompt))\n"
    "    rows.append(found._replace(response=found.response[cut], said=found.said[cut]))",
  ),
  Mutation(
    "the start of a prompt cut off",
    ENDS + "nothing_is_truncated",
    "data/arrays.py",
    "in enumerate(encode_prompts(tokenizer, prompts)):",
    "in enumerate([ids[-length:] for ids in encode_prompts(tokenizer, prompts)]):",
  ),
  # Log-probs and sampling
  Mutation(
    "PPO trains without the temperature",
    LOGPROBS + "the_sampling_temperature_reaches_policy_and_reference",
    "algorithms/ppo.py",
    "truncated_logits(logits / temperature, batch.support)",
    "truncated_logits(logits / 1.0, batch.support)",
  ),
  Mutation(
    "PPO's reference without the temperature",
    LOGPROBS + "the_sampling_temperature_reaches_policy_and_reference",
    "algorithms/ppo.py",
    "make_logprobs(model.apply, temperature, ",
    "make_logprobs(model.apply, 1.0, ",
  ),
  Mutation(
    "REINFORCE trains without the temperature",
    LOGPROBS + "the_sampling_temperature_reaches_reinforce",
    "algorithms/reinforce.py",
    "truncated_logits(logits / temperature, batch.support)",
    "truncated_logits(logits / 1.0, batch.support)",
  ),
  Mutation(
    "REINFORCE's reference without the temperature",
    LOGPROBS + "the_sampling_temperature_reaches_reinforce",
    "algorithms/reinforce.py",
    "make_logprobs(model.apply, temperature, ",
    "make_logprobs(model.apply, 1.0, ",
  ),
  *(
    Mutation(
      f"{name} {what} without the temperature",
      LOGPROBS + "the_sampling_temperature_reaches_rloo_and_grpo",
      f"algorithms/{name}.py",
      old,
      new,
    )
    for name, what, old, new in (
      ("rloo", "trains", "**only(batch.at)) / temperature", "**only(batch.at))"),
      ("rloo", "takes its reference", "(model.apply, temperature, ", "(model.apply, 1.0, "),
      ("grpo", "trains", "**only(batch.at)) / temperature", "**only(batch.at))"),
      ("grpo", "takes its reference", "(model.apply, sampling.temperature, ", "(model.apply, 1.0, "),
    )
  ),
  Mutation(
    "the positions that count are read one late",
    LOGPROBS + "a_forward_of_the_positions_that_count_reads_the_state_before_each_token",
    "models/language_model.py",
    "segments, None if at is None else at - 1)",
    "segments, None if at is None else jnp.minimum(at, tokens.shape[1] - 1))",
  ),
  Mutation(
    "dropout is active",
    LOGPROBS + "no_dropout_while_log_probs_are_computed",
    "models/layer.py",
    'return self.dense(c.d_model, "mlp_out",',
    'y = nn.Dropout(0.1, deterministic=False)(y, rng=jax.random.key(0))\n    return self.dense(c.d_model, "mlp_out",',
  ),
  Mutation(
    "a key for dropout in the config",
    LOGPROBS + "no_dropout_while_log_probs_are_computed",
    "models/config.py",
    "norm_eps: float = 1e-6",
    "norm_eps: float = 1e-6\n  dropout: float = 0.0",
  ),
  Mutation(
    "log-prob of the likeliest token",
    LOGPROBS + "the_recorded_logp_is_that_of_the_sampled_token",
    "sampling/filters.py",
    "jnp.take_along_axis(logits, action[:, None], axis=1)[:, 0] - log_total",
    "highest[:, 0] - log_total",
  ),
  Mutation(
    "log-prob under top-k",
    LOGPROBS + "the_recorded_logp_is_that_of_the_sampled_token",
    "sampling/filters.py",
    "jnp.log(jnp.sum(weights, axis=-1))",
    "jnp.log(jnp.sum(truncate(weights, top_k=8), axis=-1))",
  ),
  Mutation(
    "a value for each sequence broadcasts along its tokens",
    NORMAL + "a_value_for_each_sequence_is_not_spread_along_the_wrong_axis",
    "reduce.py",
    "    if shape != wanted:",
    "    if len(shape) != len(wanted):",
  ),
  Mutation(
    "the loss is logged as a mean over tokens",
    NORMAL + "the_loss_that_is_logged_is_the_loss_that_is_differentiated",
    "train/update.py",
    'found = {"loss": loss, "grad_norm": norm, ',
    'found = {"grad_norm": norm, ',
  ),
  Mutation(
    "PPO trains the whole softmax on samples of a truncated one",
    LOGPROBS + "what_truncation_leaves_is_what_is_trained",
    "algorithms/ppo.py",
    "truncated_logits(logits / temperature, batch.support)",
    "logits / temperature",
  ),
  Mutation(
    "REINFORCE trains the whole softmax on samples of a truncated one",
    LOGPROBS + "what_truncation_leaves_is_what_is_trained",
    "algorithms/reinforce.py",
    "truncated_logits(logits / temperature, batch.support)",
    "logits / temperature",
  ),
  Mutation(
    "RLOO trains the whole softmax on samples of a truncated one",
    LOGPROBS + "what_truncation_leaves_is_what_is_trained",
    "algorithms/rloo.py",
    "truncated_logits(apply(params, batch.tokens, **only(batch.at)) / temperature, batch.support)",
    "apply(params, batch.tokens, **only(batch.at)) / temperature",
  ),
  Mutation(
    "GRPO trains the whole softmax on samples of a truncated one",
    LOGPROBS + "what_truncation_leaves_is_what_is_trained",
    "algorithms/grpo.py",
    "truncated_logits(apply(params, batch.tokens, **only(batch.at)) / temperature, batch.support)",
    "apply(params, batch.tokens, **only(batch.at)) / temperature",
  ),
  Mutation(
    "truncated samples with log-probs of the whole softmax",
    LOGPROBS + "what_truncation_leaves_is_what_is_trained",
    "sampling/filters.py",
    "return action, _logp(logits, action, highest, weights), jnp.packbits",
    "return action, _logp(logits, action, highest, jnp.exp(logits - highest)), jnp.packbits",
  ),
  Mutation(
    "one key for all rows",
    LOGPROBS + "every_row_and_token_draws_from_a_key_of_its_own",
    "sampling/generate.py",
    "_fold_in(key, rows)",
    "jnp.repeat(key, rows)",
  ),
  Mutation(
    "one key for all tokens",
    LOGPROBS + "every_row_and_token_draws_from_a_key_of_its_own",
    "sampling/generate.py",
    "inputs.uniform[of, slots.num_sampled]",
    "inputs.uniform[of, 0]",
  ),
  Mutation(
    "one key for all steps",
    LOGPROBS + "every_step_and_stage_draws_from_a_key_of_its_own",
    "train/environment.py",
    "jax.random.fold_in(stage_key(self._stage), index)",
    "stage_key(self._stage)",
  ),
  Mutation(
    "one key for all stages",
    LOGPROBS + "every_step_and_stage_draws_from_a_key_of_its_own",
    "stage.py",
    'f"{self.seed}/{self.name}"',
    'f"{self.seed}"',
  ),
  # Normalisation
  Mutation(
    "a mean of microbatch means",
    NORMAL + "a_mean_is_over_all_tokens_and_not_of_means",
    "train/update.py",
    "has_aux=True)(trained, batch, weights)",
    "has_aux=True)(trained, batch, jax.tree.map(lambda w: w / jnp.sum(w) / 2, weights))",
  ),
  Mutation(
    "a mean over the devices of pmap",
    NORMAL + "a_mean_is_over_all_tokens_and_not_of_means",
    "train/update.py",
    '*pool_over(gradients(params, batch, weights), "batch")',
    '*jax.lax.pmean(gradients(params, batch, weights), "batch")',
    8,
  ),
  Mutation(
    "a mean over the devices of shard_map",
    NORMAL + "a_mean_is_over_all_tokens_and_not_of_means",
    "train/rows.py",
    "return jax.lax.psum(gradient.astype(transport.gradient_dtype), axes)",
    "return jax.lax.pmean(gradient.astype(transport.gradient_dtype), axes)",
    8,
  ),
  Mutation(
    "microbatches that multiply the work",
    NORMAL + "microbatches_are_cut_on_each_device",
    "train/rows.py",
    "return local if mesh.size == 1 else total",
    "return local",
    8,
  ),
  Mutation(
    "padded rows count",
    NORMAL + "rows_that_are_added_count_nothing",
    "train/rows.py",
    "[(0, missing)] + [(0, 0)] * (np.ndim(x) - 1))",
    "[(0, missing)] + [(0, 0)] * (np.ndim(x) - 1), mode='edge')",
    8,
  ),
  Mutation(
    "metrics of the last microbatch",
    NORMAL + "metrics_are_of_all_microbatches_by_their_weight",
    "train/rows.py",
    "(pool(sums, part(params, *cut)), None)",
    "((pool(sums, part(params, *cut))[0], part(params, *cut)[1]), None)",
  ),
  Mutation(
    "metrics averaged with equal weight",
    NORMAL + "metrics_are_of_all_microbatches_by_their_weight",
    "types.py",
    "return Mean(weighted_sum(self.values, weights), jnp.sum(weights))",
    "return Mean(weighted_sum(self.values, weights) / jnp.sum(weights), jnp.ones(()))",
  ),
  Mutation(
    "metrics of the last minibatch",
    NORMAL + "metrics_are_of_all_minibatches",
    "train/epochs.py",
    "pooled = _pool(pooled, part) if pooled else part",
    "pooled = part",
  ),
  Mutation(
    "advantages whitened per minibatch",
    NORMAL + "advantages_are_whitened_over_the_whole_rollout_without_padding",
    "train/array_functions.py",
    "own(logp, batch.logp, batch.advantages, mask",
    "own(logp, batch.logp, __import__('rlhf_jax.reduce').reduce.whiten(batch.advantages, batch.mask), mask",
  ),
  Mutation(
    "advantages whitened with padding",
    NORMAL + "advantages_are_whitened_over_the_whole_rollout_without_padding",
    "algorithms/ppo.py",
    "advantages = whiten(advantages, mask)",
    "advantages = whiten(advantages, jnp.ones_like(mask))",
  ),
  Mutation(
    "a group of one is silently 0",
    NORMAL + "a_group_of_one_is_refused_and_one_of_equal_rewards_is_zero",
    "objectives/policy.py",
    "if size < 2:",
    "if size < 2:\n    return jnp.zeros_like(rewards)\n  if size < 2:",
  ),
  Mutation(
    "a config with a group of one is accepted",
    NORMAL + "a_group_of_one_is_refused_and_one_of_equal_rewards_is_zero",
    "algorithms/reinforce.py",
    "self.environment.samples_per_prompt < 2:",
    "self.environment.samples_per_prompt < 1:",
  ),
  Mutation(
    "equal rewards divide by a deviation of 0",
    NORMAL + "a_group_of_one_is_refused_and_one_of_equal_rewards_is_zero",
    "objectives/policy.py",
    "return centred / (std + eps)",
    "return centred / std",
  ),
  Mutation(
    "a mean without keepdims",
    NORMAL + "the_mean_of_a_group_is_taken_from_that_group",
    "objectives/policy.py",
    "jnp.mean(rewards, axis=-1, keepdims=True)",
    "jnp.mean(rewards, axis=-1)",
  ),
  Mutation(
    "groups across prompts",
    NORMAL + "the_mean_of_a_group_is_taken_from_that_group",
    "algorithms/reinforce.py",
    "returns.reshape(-1, samples_per_prompt)",
    "returns.reshape(samples_per_prompt, -1).T",
  ),
  # KL
  Mutation(
    "penalty added in PPO",
    KL + "the_penalty_is_subtracted",
    "objectives/kl.py",
    "return -coef * select(kl, mask)",
    "return coef * select(kl, mask)",
  ),
  Mutation(
    "penalty added in REINFORCE",
    KL + "the_penalty_is_subtracted",
    "algorithms/reinforce.py",
    "returns = scores - kl_coef * sequence_kl",
    "returns = scores + kl_coef * sequence_kl",
  ),
  Mutation(
    "KL where no gradient flows",
    KL + "a_kl_loss_has_a_gradient",
    "objectives/kl.py",
    "d = log_ratio(logp, logp_ref, mask)",
    "d = jax.lax.stop_gradient(log_ratio(logp, logp_ref, mask))",
  ),
  Mutation(
    "a clamp kills the gradient",
    KL + "no_clamp_kills_the_gradient",
    "objectives/kl.py",
    "return jnp.where(x > MAX_LOG_RATIO, MAX_LOG_RATIO + (x - jax.lax.stop_gradient(x)), x)",
    "return jnp.minimum(x, MAX_LOG_RATIO)",
  ),
  Mutation(
    "k1 as the loss in place of k2",
    KL + "k2_is_the_kl_loss_while_k1_has_no_gradient_and_k3_another",
    "objectives/kl.py",
    "return 0.5 * jnp.square(d)",
    "return d",
  ),
  Mutation(
    "the metric is a token mean",
    KL + "the_kl_metric_is_the_penalised_one_summed_over_a_sequence",
    "algorithms/ppo.py",
    "sequence_kl = jnp.sum(kl, axis=1)",
    "sequence_kl = jnp.sum(kl, axis=1) / jnp.sum(mask, axis=1)",
  ),
  Mutation(
    "the metric is of another estimate",
    KL + "the_kl_metric_is_the_penalised_one_summed_over_a_sequence",
    "algorithms/ppo.py",
    "sequence_kl = jnp.sum(kl, axis=1)",
    'sequence_kl = jnp.sum(kl_estimate(rollout.logp, logp_ref, kind="k3", mask=mask), axis=1)',
  ),
  Mutation(
    "the controller is fed another KL",
    KL + "the_controller_is_fed_the_kl_that_is_penalised",
    "algorithms/ppo.py",
    'next_kl_coef(state.extra["kl_coef"], metrics["kl/reference"])',
    'next_kl_coef(state.extra["kl_coef"], metrics["kl/k3"])',
  ),
  Mutation(
    "log-probs in bfloat16",
    KL + "log_probs_are_float32_before_they_are_subtracted",
    "reduce.py",
    "return jnp.asarray(x).astype(jnp.float32)",
    "return jnp.asarray(x)",
  ),
  Mutation(
    "logits in bfloat16",
    KL + "log_probs_are_float32_before_they_are_subtracted",
    "models/language_model.py",
    "return lambda hidden: _rule_out(config, logits(hidden).astype(jnp.float32))",
    "return lambda hidden: _rule_out(config, logits(hidden))",
  ),
  # Packing
  Mutation(
    "attention crosses the boundary",
    PACKING + "packed_sequences_neither_attend_nor_shift_across_their_boundary",
    "models/language_model.py",
    "visible & (segments[:, :, None] == segments[:, None, :])",
    "visible",
  ),
  Mutation(
    "the shift crosses the boundary",
    PACKING + "packed_sequences_neither_attend_nor_shift_across_their_boundary",
    "models/language_model.py",
    "return jnp.where(first.reshape(first.shape + (1,) * (before.ndim - 2)), 0, shifted)",
    "return shifted",
  ),
  Mutation(
    "segment ids as weights",
    PACKING + "segment_ids_are_no_weights",
    "algorithms/sft.py",
    "return weighted_sum(error, weights), {}",
    "return weighted_sum(error, weights if batch.segments is None else weights * batch.segments), {}",
  ),
  # Runs
  Mutation(
    "resume starts the data again",
    RUNS + "resume_neither_replays_nor_skips_a_batch",
    "train/loop.py",
    "start = int(state.step)",
    "start = 0",
  ),
  Mutation(
    "resume is ignored",
    RUNS + "resume_neither_replays_nor_skips_a_batch",
    "train/loop.py",
    "return attach(restored.state if restored else like, frozen)",
    "return attach(like, frozen)",
  ),
  Mutation(
    "resume skips a batch",
    RUNS + "resume_neither_replays_nor_skips_a_batch",
    "train/loop.py",
    "for index in range(start, end):",
    "for index in range(start + (start > 0), end):",
  ),
  Mutation(
    "every epoch in the same order",
    RUNS + "resume_neither_replays_nor_skips_a_batch",
    "data/arrays.py",
    "np.random.default_rng((seed, epoch))",
    "np.random.default_rng(seed)",
  ),
  Mutation(
    "an unknown key is passed over",
    RUNS + "a_config_key_that_does_not_exist_is_refused",
    "settings.py",
    "if key not in fields:",
    "if not fields:",
  ),
  Mutation(
    "a key read under another name",
    RUNS + "every_config_key_is_read",
    "algorithms/ppo.py",
    "entropy_coef=config.entropy_coef,",
    'entropy_coef=getattr(config, "entropy_bonus", 0.0),',
  ),
  Mutation(
    "a key that nothing reads",
    RUNS + "every_config_key_is_read",
    "train/optimizer.py",
    "  clip_norm: PositiveFloat\n",
    "  clip_norm: PositiveFloat\n  amsgrad_decay: float = 0.0\n",
  ),
  # Numerics
  Mutation(
    "TensorFlow's epsilon is not to be had",
    NUMERICS + "adams_epsilon",
    "train/optimizer.py",
    "scale = _scale_by_tensorflow_adam if settings.tensorflow_eps else optax.scale_by_adam",
    "scale = optax.scale_by_adam",
  ),
  Mutation(
    "torch's epsilon is not to be had",
    NUMERICS + "adams_epsilon",
    "train/optimizer.py",
    "scale = _scale_by_tensorflow_adam if settings.tensorflow_eps else optax.scale_by_adam",
    "scale = _scale_by_tensorflow_adam",
  ),
  Mutation(
    "ddof of whitening is not passed on",
    NUMERICS + "ddof_of_whitening_and_of_group_normalisation",
    "reduce.py",
    "masked_moments(x, mask, ddof=ddof, axis_name=axis_name)",
    "masked_moments(x, mask, axis_name=axis_name)",
  ),
  Mutation(
    "group normalisation with ddof 1",
    NUMERICS + "ddof_of_whitening_and_of_group_normalisation",
    "objectives/policy.py",
    "eps: Scalar = 1e-6, ddof: int = 0",
    "eps: Scalar = 1e-6, ddof: int = 1",
  ),
  # Invariants
  Mutation(
    "recorded at another temperature",
    INVARIANT + "1_without_learning_the_ratio_is_1",
    "sampling/filters.py",
    "jnp.take_along_axis(logits, action[:, None], axis=1)[:, 0] - log_total",
    "jnp.take_along_axis(jax.nn.log_softmax(logits * temperature), action[:, None], axis=1)[:, 0]",
  ),
  Mutation(
    "k3 short of its -1",
    INVARIANT + "2_where_the_policy_is_the_reference_every_kl_is_0",
    "objectives/kl.py",
    "return jnp.expm1(cap_log_ratio(-d)) + d",
    "return jnp.exp(cap_log_ratio(-d)) + d",
  ),
  Mutation(
    "masked behind the arithmetic only",
    INVARIANT + "3_masked_positions_change_nothing",
    "objectives/language.py",
    "logits = select_rows(logits, mask)  # [..., T, V]\n  return select(",
    "logits = jnp.asarray(logits, jnp.float32)  # [..., T, V]\n  return select(",
  ),
  Mutation(
    "gradients of shard_map summed twice",
    INVARIANT + "4_any_split_gives_the_same_loss_and_gradients",
    "train/rows.py",
    "return jax.lax.psum(gradient.astype(transport.gradient_dtype), axes)",
    "return jax.lax.psum(jax.lax.psum(gradient.astype(transport.gradient_dtype), axes), axes)",
    8,
  ),
  Mutation(
    "the first microbatch is left out",
    INVARIANT + "4_any_split_gives_the_same_loss_and_gradients",
    "train/rows.py",
    "pool(sums, part(params, *cut)), None), start, cuts)",
    "pool(sums, part(params, *cut)), None), start, jax.tree.map(lambda x: x[1:], cuts))",
  ),
  Mutation(
    "attention looks ahead",
    INVARIANT + "5_padded_equals_unpadded_equals_packed",
    "models/language_model.py",
    "index[None, :] <= index[:, None]",
    "index[None, :] <= index[:, None] + 1",
  ),
  Mutation(
    "decoding does not see its own token",
    INVARIANT + "6_the_cache_gives_the_log_probs_of_the_full_forward",
    "models/language_model.py",
    "<= positions[..., None]  # [B, S, U]",
    "< jnp.maximum(positions, 1)[..., None]  # [B, S, U]",
  ),
  Mutation(
    "leave-one-out with the mean of all",
    INVARIANT + "7_gradients_are_exact_by_enumeration",
    "objectives/policy.py",
    "return _centred(rewards) * (size / (size - 1))",
    "return _centred(rewards)",
  ),
  Mutation(
    "the gradient of exp(logp) in REINFORCE",
    INVARIANT + "7_gradients_are_exact_by_enumeration",
    "objectives/policy.py",
    "return floor_logp(logp, mask) * ",
    "return jnp.exp(floor_logp(logp, mask)) * ",
  ),
  Mutation(
    "gae short of its discount",
    INVARIANT + "8_advantages_returns_and_rewards_equal_a_plain_loop",
    "objectives/value.py",
    "- value + discount * lam * next_advantage",
    "- value + lam * next_advantage",
  ),
  Mutation(
    "returns with a lambda",
    INVARIANT + "8_advantages_returns_and_rewards_equal_a_plain_loop",
    "objectives/value.py",
    "discount=discount, lam=1.0)",
    "discount=discount, lam=0.95)",
  ),
  Mutation(
    "resume without Adam's moments",
    INVARIANT + "9_a_resumed_run_is_the_uninterrupted_one_bit_for_bit",
    "train/checkpoint.py",
    'state = TrainState(params=loaded["params"], **loaded["rest"])',
    'state = TrainState(params=loaded["params"], **{**loaded["rest"], "opt_state": like.opt_state})',
  ),
  Mutation(
    "lam is not the config's",
    INVARIANT + "10_a_config_key_that_is_changed_changes_the_update",
    "algorithms/ppo.py",
    "lam=config.lam",
    "lam=0.95",
  ),
  Mutation(
    "a reward model's scores are fetched",
    "test_transfers.py::test_a_step_of_ppo_fetches_tokens_and_sends_prompts_and_scores",
    "train/rewards.py",
    "return lambda rollout, prompts, responses: compiled(params, rollout.tokens, rollout.mask, rollout.at)",
    "return lambda rollout, prompts, responses: np.asarray(compiled(params, rollout.tokens, rollout.mask, rollout.at))",
  ),
]
