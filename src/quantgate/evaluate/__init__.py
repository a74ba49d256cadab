"""Compare a variant with its baseline, capability by capability, on cases neither has seen."""
