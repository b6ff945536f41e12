"""Compact encoder placeholder."""
