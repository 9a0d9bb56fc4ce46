"""Two or more sets of records -> what is different, a verdict, an exit code.

compare    joins sides point by point, with ratios and intervals; sides, calls, result: its stages. Pure
gate       rule: pairs -> regression, pass or inconclusive. policy, checks, judge: a comparison -> a verdict. Pure
ab         two arms launched alternately: arms, launches, control, run, judge
baseline   the run that is kept to compare with; history: a metric over all runs; runs: what `smoke@latest` means
read       names of runs -> a comparison, a verdict, a history
outputs    terminal, Markdown, JSON, JUnit and annotations
"""
