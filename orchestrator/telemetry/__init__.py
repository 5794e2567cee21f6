"""Metrics and logs; every name that they use stands in names.py."""
