"""Abstain: answers with a confidence, a calibrated threshold, and a router behind it."""
