"""Comparisons that a reader can trust: variants that differ only in what is compared."""
