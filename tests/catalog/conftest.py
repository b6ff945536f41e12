"""Servers that tests of catalogs start for themselves."""

from tests.index.test_milvus import server as milvus_server  # noqa: F401
