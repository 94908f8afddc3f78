"""Families of constraints: one function each, equation in the docstring, golden programme in the tests."""

from __future__ import annotations

from collections.abc import Iterator

from pulp import LpConstraint

Rows = Iterator[tuple[str, LpConstraint]]
"""A row's name, which says what it is about, and the row."""
