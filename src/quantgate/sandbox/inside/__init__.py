"""What runs beside quantgate, in processes of its own: a server that forks, and behind it tester and solver of a run.

These files are loaded by a bare interpreter (no site, a clean environment) as the package ``inside``: they import the
standard library and each other, nothing else of quantgate. In the order in which a run meets them:

    kernel    system calls that Python does not offer
    seccomp   which system calls the solver may make, as a BPF program
    landlock  which files it may open
    rooms     namespaces and a small file tree, once per server (tier 1)
    enter     everything that one process gives up, in the right order
    wire      values as bytes: plain data are rebuilt, everything else stays a handle
    solver    holds the code under test and serves calls to it
    tester    holds the tests and the nonce, and makes these calls
    keeper    starts both, watches limits, kills what is left
    server    forks a keeper per run
"""
