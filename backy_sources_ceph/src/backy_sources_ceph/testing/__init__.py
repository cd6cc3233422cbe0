"""Helps to test this source and sources that build upon it: `backy_sources_ceph.testing.cluster`."""
