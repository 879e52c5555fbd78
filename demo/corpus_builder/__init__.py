"""Builds the demo corpus: real recordings from Debian packages, packed the three ways that users have their audio."""
