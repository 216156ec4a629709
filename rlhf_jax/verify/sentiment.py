"""The sentiment of a text by VADER's word list and rules (Hutto and Gilbert 2014), a program that learns nothing.

By the library vaderSentiment (https://github.com/cjhutto/vaderSentiment), an extra: pip install 'rlhf_jax[sentiment]'.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlhf_jax.data import PromptValue, value_text
from rlhf_jax.settings import ConfigError

try:
  from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
except ImportError as error:
  raise ConfigError(
    "rlhf_jax.verify.sentiment needs the package vaderSentiment: pip install 'rlhf_jax[sentiment]'"
  ) from error

_analyzer = SentimentIntensityAnalyzer()


def vader(prompts: Sequence[PromptValue], responses: Sequence[str]) -> dict[str, np.ndarray]:
  """{"total": f32[N]}, the compound score of each text from -1, most negative, to 1; a word of the list moves it.

  The text is the prompt and the response with a space between them. The mapping serves as the `gold` of an evaluation
  as well as for a reward or a monitor.
  """
  texts = (f"{value_text(prompt)} {response}" for prompt, response in zip(prompts, responses, strict=True))
  return {"total": np.array([_analyzer.polarity_scores(text)["compound"] for text in texts], np.float32)}
