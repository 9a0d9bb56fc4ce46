"""All runs below a folder -> a static site of them: no server, no outside assets, opened from disk.

collect    a folder -> where its runs and A/B comparisons lie, and whether they have changed
summary    what the pages need of a run, of an A/B comparison and of a pair of runs: kept as JSON between builds
digest     a run -> its summary and the body of its page; pairs: two runs -> what `hvbench compare` says of them
work       which of these are not known yet -> processes that compute them
atlas      summaries -> suites, machines, lines of metrics with change points, what is stale or failed
pages      all of that -> texts of pages and parts of data, with templates; cells and sparks draw what stands in a cell
folder     texts -> files, written where they changed; build: the whole way; serve: a loopback server that builds again
"""
