"""Revisions on their way between two backup servers: one offers them, and the other one asks, checks and stores.

Import `offer.Offer` for the one, `arrival.Arrival` for the other, and `wire.Wire`, over which they talk.
docs/reference/protocol.md describes what they say.
"""
