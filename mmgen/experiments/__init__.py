"""Comparisons that a reader can trust: recipes that differ only in what is compared, measured alike."""
