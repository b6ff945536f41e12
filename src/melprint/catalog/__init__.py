"""Collections of fingerprinted tracks that grow, shrink and answer."""

from melprint.catalog.catalog import Catalog
from melprint.catalog.tables import Track

__all__ = ["Catalog", "Track"]
