"""One file per trial.

combinations(settings) -> the settings to try, each in two arms
broken(settings, combination), fixed(settings, combination) -> what was measured

An arm passes by returning and showing its effect, is `failed` by raising arms.Failed, and `raised` by
any other exception. Libraries are imported inside the functions.
"""
