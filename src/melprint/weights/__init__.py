"""Trained networks as files: those that come with the package, and exchange of others. Nothing here imports torch."""
