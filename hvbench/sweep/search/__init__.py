"""Search for the training that reaches a loss soonest, gets furthest, or draws least: proposals, early ends, and a proof of the gain.

space       what may be varied: `learning_rate = "log:1e-4..1e-1"`, pure
goals       what a launch is worth, pure
question    both, of a default and within a budget, pure
ask         a space file and the words of a command line -> a question
pruning     when a running launch is trained no further, pure
proposals   what is tried next: optuna's samplers
trials      asks, launches, tells: a record a launch, as of a sweep
confirm     what was found against the default, in pairs of launches with seeds that the search has not seen
session     trials, then pairs, on the workers of a launch
found       what came out, and `report`, its words, both pure
"""
