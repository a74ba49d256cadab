"""The speed table: ``make bench``. Ratios, because machines differ and timings are noisy; nothing here is a test."""
