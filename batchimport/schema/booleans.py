"""Words that mean true or false in a column that is boolean."""

from __future__ import annotations

import polars as pl

TRUE = ("true", "t", "yes", "y", "on", "1", "ja", "j", "oui", "si", "sí")
FALSE = ("false", "f", "no", "n", "off", "0", "nein", "non")


def read_words(text: pl.Expr) -> pl.Expr:
    """Return what words mean; null for any other text."""
    text = text.str.strip_chars().str.to_lowercase()
    is_true = pl.when(text.is_in(TRUE)).then(pl.lit(value=True))
    return is_true.when(text.is_in(FALSE)).then(pl.lit(value=False))
