"""Predictions beside measurements: read runs, predict them, fit parameters, give intervals, report."""
