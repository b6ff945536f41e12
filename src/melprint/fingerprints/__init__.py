"""Fingerprint stores: memory-mapped rows with a table of tracks, and the extractor that fills them."""
