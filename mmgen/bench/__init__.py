"""Measurements of drawing: how fast, and what the machine would allow."""
