"""Makes repositories of backy 2 into repositories of backy 3: the command `backy upgrade`."""
