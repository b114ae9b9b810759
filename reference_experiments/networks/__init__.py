"""Networks that datasets hold: SIRENs and small classifiers, many at once."""
