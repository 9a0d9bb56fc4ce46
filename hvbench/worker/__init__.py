"""One rank of one framework: it runs jobs one after the other, reads the clock and writes samples.

An agent starts it as `python -m hvbench.worker DIRECTORY`, with `generation.json` in DIRECTORY (see
`hvbench.launch.messages.WorkerDescription`). The worker writes there:

    progress.json     where it is; written over
    result-N.json     the result of job N; written once
    failure.json      why it ended early
    pid, stack.txt    where mpirun's agent can reach it; what every thread is doing, when SIGUSR1 asks for it

What the framework prints goes to the log that the agent has opened.
"""
