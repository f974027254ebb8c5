"""Files and folders that appear whole or not at all, and tell when they were damaged later.

Everything the package writes goes through here; nothing here knows what is written.
"""
