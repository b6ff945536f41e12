"""Nearest neighbours among fingerprints: one protocol, an exact oracle, and faiss."""
