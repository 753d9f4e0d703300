"""The scenarios that come along, each a file to read and to copy."""
