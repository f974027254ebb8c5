"""Triton's interpreter without the work that it repeats: kernels take three fifths of the time."""

import dataclasses


def quicken(check_overflow):
    """Let the interpreter prepare for each launch once, and check no sizes that tests never reach.

    A launch patches Triton's language so that it computes with NumPy, and so does every call of a
    function within the kernel, though all functions of a module need the same patches. Overflow of
    32-bit indices is looked for by computing each of them again in 64 bits.

    Args:
        check_overflow: Look for overflow all the same.
    """
    from triton.runtime import interpreter

    patch, launch = interpreter._patch_lang, interpreter.GridExecutor.__call__
    patched = set()

    def patch_once(function):
        if function.__module__ not in patched:
            patched.add(function.__module__)
            return patch(function)
        return None

    def launch_afresh(*args, **kwargs):
        patched.clear()
        return launch(*args, **kwargs)

    interpreter._patch_lang = patch_once
    interpreter.GridExecutor.__call__ = launch_afresh
    builder = interpreter.interpreter_builder
    builder.options = dataclasses.replace(builder.options, sanitize_overflow=check_overflow)
