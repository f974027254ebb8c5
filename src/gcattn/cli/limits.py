"""Numbers on the command line that can't be meant."""

# of whatever is counted: far beyond any memory, and safe in all arithmetic
MOST = 2**40
