"""Corpora: music, noise and rooms, each fetched or found, prepared once and divided into splits."""

from melprint.data.corpora.corpus import Corpus, FolderCorpus, NafpCorpus, PackageCorpus, Rooms
from melprint.data.corpora.noise import FolderNoise, PackageNoise, PinkNoise

__all__ = ["Corpus", "FolderCorpus", "FolderNoise", "NafpCorpus", "PackageCorpus", "PackageNoise", "PinkNoise", "Rooms"]
