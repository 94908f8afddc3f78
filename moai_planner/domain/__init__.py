"""Frozen values that the rooms hand to each other; imports nothing of ours."""
