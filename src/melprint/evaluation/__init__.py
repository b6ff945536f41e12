"""Evaluation: protocols, metrics with intervals, reports."""
