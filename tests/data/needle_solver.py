"""A plain reader of needles: finds statements in a token stream and answers questions by rule."""


def find(stream, pattern, start=0):
    """Return the first place of a token sequence at or behind `start`, -1 without one."""
    for place in range(start, len(stream) - len(pattern) + 1):
        if stream[place] == pattern[0] and tuple(stream[place : place + len(pattern)]) == pattern:
            return place
    return -1


def statements(context, opening, verb, end, key_tokens):
    """Yield (key, what is said of it) of every statement `opening KEY verb … end`."""
    place = find(context, opening)
    while place >= 0:
        body = place + len(opening)
        key = tuple(context[body : body + key_tokens])
        rest = body + key_tokens
        if tuple(context[rest : rest + len(verb)]) == verb:
            rest += len(verb)
            yield key, tuple(context[rest : find(context, end, rest)])
        place = find(context, opening, place + 1)


def join(items, word):
    joined = items[0]
    for item in items[1:]:
        joined += word + item
    return joined


def between(prompt, left, right):
    """Return what stands between the opening words of a question and those that follow."""
    assert prompt[: len(left)] == left
    return prompt[len(left) : find(prompt, right, len(left))]


def solve(context, prompt, words):
    """Answer a question from what comes before it; knows nothing but the phrases."""
    say = words.phrases
    context, prompt = list(context), tuple(prompt)

    def secrets():
        return list(statements(context, say.secret_of, say.is_, say.end, words.key_tokens))

    def starts(*phrase):
        return prompt[: len(phrase)] == phrase

    if starts(*say.what_is_final_secret_of):
        key = between(prompt, say.what_is_final_secret_of, say.so_final_secret_of)
        known = dict(secrets())
        while True:
            said = known[key]
            # a link says the next key behind some last words of "the secret of", or none of them
            tails = [say.the_secret_of[n:] for n in range(len(say.the_secret_of) + 1)]
            behind = [said[len(tail) :] for tail in tails if said[: len(tail)] == tail]
            links = [following for following in behind if following in known]
            if not links:
                return said
            (key,) = links
    if starts(*say.what_is_secret_of):
        key = between(prompt, say.what_is_secret_of, say.so_secret_of)
        # what the question says behind "is" already is no part of the answer
        said = prompt[find(prompt, key + say.is_) + len(key + say.is_) :]
        value = dict(secrets())[key]
        assert value[: len(said)] == said
        return value[len(said) :]
    if starts(*say.what_are_secrets_of):
        key = between(prompt, say.what_are_secrets_of, say.so_secrets_of)
        return join([value for name, value in secrets() if name == key], say.and_)
    if starts(*say.which_variables_equal):
        wanted = between(prompt, say.which_variables_equal, say.so_variables_equal)
        holds, names = {}, []
        for name, source in statements(
            context, say.variable, say.equals, say.end, words.key_tokens
        ):
            copied = source[: len(say.the_variable)] == say.the_variable
            holds[name] = holds[source[len(say.the_variable) :]] if copied else source
            if holds[name] == wanted:
                names.append(name)
        return join(names, say.and_)
    place = find(context, prompt)
    return tuple(context[place + len(prompt) :])
