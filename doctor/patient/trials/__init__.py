"""One file per trial.

combinations(settings) -> the settings to try, each in two arms
broken(settings, combination), fixed(settings, combination) -> what was measured

A combination may name a `remedy`; where it is None there is none to try, and the fixed arm is left out.

An arm passes by returning and showing its effect, is `failed` by raising arms.Failed, and `raised` by
any other exception. Libraries are imported inside the functions.
"""
