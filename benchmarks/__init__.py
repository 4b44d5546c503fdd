"""Benchmarks, run by hand; see README.md. None of them is a test."""
