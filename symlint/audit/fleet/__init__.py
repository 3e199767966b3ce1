"""Fleets: many models at once, in processes, on a cluster, from elsewhere, and never the same one twice.

Nothing of it is imported for a check of local files by one process without a cache.
"""
