"""What tests of this source and of sources that build upon it share: `backy_sources_ceph.testing.cluster`."""
