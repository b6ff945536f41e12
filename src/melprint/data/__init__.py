"""Prepared audio, corpora, and the batches that training takes from them."""
