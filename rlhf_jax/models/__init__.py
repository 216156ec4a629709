"""Language models as pure functions over plain parameter trees: the only home of flax.linen."""

from rlhf_jax.models.decoder import DecoderConfig
from rlhf_jax.models.language_model import LanguageModel, language_model

__all__ = ["DecoderConfig", "LanguageModel", "language_model"]
