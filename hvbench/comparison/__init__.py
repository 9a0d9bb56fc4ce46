"""Two or more sets of records -> what is different, a verdict, an exit code.

compare    join runs point by point, with ratios, intervals and corrections; pure
gate       pairs -> regression, pass, or "I cannot tell"; pure. judge: a comparison and a policy -> a verdict; pure
ab         two arms launched alternately (arms, abtest); control: did the machine move?
baseline   the run that was kept; history: a metric over all of them; runs: what `smoke@latest` means
outputs    terminal, Markdown, JSON, JUnit and annotations
"""
