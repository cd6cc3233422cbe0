"""Plugins written for the first version of the contract, kept as they were then."""
