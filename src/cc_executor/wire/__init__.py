"""The watchers' dialect: what goes between a run's watchers and a server. Pure: no I/O, no clock."""
