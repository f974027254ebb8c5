"""The experiments that anyone new to the method runs first, on a corpus made by our own code."""
