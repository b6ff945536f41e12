"""Corpora: music, noise and rooms, each fetched or found, prepared once and divided into splits."""

from melprint.data.corpora.corpus import Corpus, FolderCorpus, NafpCorpus, PackageCorpus

__all__ = ["Corpus", "FolderCorpus", "NafpCorpus", "PackageCorpus"]
