"""Normalised scores of a reward model, and the scale that makes logits of preference of them again."""

import json

import numpy as np
from tiny_chain import a_stage

from rlhf_jax.train import normalize_head, score_moments, score_scale


def test_the_scale_gives_back_the_differences_of_training(tmp_path):
  rng = np.random.default_rng(0)
  hidden, likelihood = rng.normal(size=(50, 8)), rng.normal(size=50)

  def score(params):
    head = params["head"]
    return hidden @ head["kernel"] + head["bias"] + head["likelihood"] * likelihood

  params = {"head": {"kernel": rng.normal(size=8), "bias": np.float64(2.0), "likelihood": np.float64(0.5)}}
  before = score(params)
  moments = score_moments(before)
  after = score(normalize_head(params, moments))
  np.testing.assert_allclose([after.mean(), after.std()], [0, 1], atol=1e-9)
  (tmp_path / "judge").mkdir()
  (tmp_path / "judge" / "normalization.json").write_text(json.dumps(moments._asdict()))
  scale = score_scale(a_stage(tmp_path), "judge")
  np.testing.assert_allclose(scale * (after[1:] - after[:-1]), before[1:] - before[:-1])
  assert score_scale(a_stage(tmp_path / "other"), f"{tmp_path}/judge") == scale
  assert score_scale(a_stage(tmp_path), "judge@4") is None and score_scale(a_stage(tmp_path), "another") is None
