"""Which known word a misspelt one stands for, for the end of a refusal."""

import difflib
from collections.abc import Iterable


def closest_word(word: str, words: Iterable[str]) -> str | None:
    """The word most like a misspelt one, or the one that abbreviates it by its initials; None where none is like it."""
    choices = {choice.lower(): choice for choice in words}
    initials = "".join(part[:1] for part in word.lower().split("_"))
    # learning_rate for lr: an abbreviation is too short to be like anything by its letters.
    if len(initials) > 1 and initials in choices:
        return choices[initials]
    close = difflib.get_close_matches(word.lower(), choices, n=1)
    return choices[close[0]] if close else None


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """` Did you mean WORD?` for the end of a message; nothing where no word is like it."""
    closest = closest_word(word, words)
    return f" Did you mean {closest}?" if closest else ""
