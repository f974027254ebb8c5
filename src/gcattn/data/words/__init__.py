"""Words, texts drawn from them, and the split that each belongs to.

Needle tasks, stories and the synthetic corpus are written with them.
"""
