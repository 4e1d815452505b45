"""Sources of records: one package for each format; `registry.py` lists them, `opening.py` opens them."""
