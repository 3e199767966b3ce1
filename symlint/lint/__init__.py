"""Lint: rules, findings, their levels and the settings of a run.

It may import `symlint.evidence.context` and what stands before it.
"""
