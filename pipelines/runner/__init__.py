"""One plan, one ledger, interchangeable runners.

The way of a batch::

    INPUT -> inputs -> plan  -> agenda -> Runner   -> ledger   -> summary, report
             files     tasks    units     outcomes    manifest

`batch.py` walks that way once and `driver.py` is its loop; `local.py` runs units in threads of
this process. A runner on other machines implements the `Runner` protocol of `units.py` and
calls `worker.py` there; nothing else changes.
"""
