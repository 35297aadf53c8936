"""What providers charge: one dated table that the setting ``prices`` overrides.

An unknown price is an error, never zero: a cap that counts zero guards nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from vectorstore.errors import ConfigurationError

PRICES_AS_OF = "2025-11-01"
USD_PER_MILLION_TOKENS = {
    "text-embedding-3-small": 0.02,
    "text-embedding-3-large": 0.13,
    "text-embedding-ada-002": 0.10,
}
PICO = 10**12  # money is counted in whole picodollars: $0.02 a million tokens are 20,000 a token


def price_per_token(model: str, overrides: Mapping[str, float], *, billable: bool = True) -> int:
    """Picodollars a token.

    Raises:
        ConfigurationError: the model has no known price.
    """
    if not billable:
        return 0
    usd = overrides.get(model, USD_PER_MILLION_TOKENS.get(model))
    if usd is None or usd < 0:
        raise ConfigurationError(
            f"the price of model {model!r} is not known (table of {PRICES_AS_OF})",
            f'set it in vectorkeep.toml, in USD a million tokens: prices = {{ "{model}" = 0.02 }}',
        )
    return round(usd * PICO / 1_000_000)


def usd(picodollars: int) -> float:
    """Picodollars as dollars."""
    return picodollars / PICO
