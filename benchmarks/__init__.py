"""afafilter beside its peers: each task is done by every library in the same run.

    make bench                                     everything, in an environment of its own
    python -m benchmarks smoothing attention       some tasks
    python -m benchmarks --report                  tables and figure from the last raw results
    python -m benchmarks --before CHECKOUT         an earlier commit beside this one, round by round
    python -m benchmarks --resume                  goes on where a run was interrupted

Every library lives in a process of its own, so that thread pools and compilers do not disturb one
another; the parent asks them for timed runs in turn, so that a busy moment hits all alike. Results
are compared before anything is timed.
"""
