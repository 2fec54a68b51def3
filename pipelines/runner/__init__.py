"""One plan, one ledger, interchangeable runners.

The way of a batch::

    INPUT -> inputs -> plan  -> agenda -> Runner   -> ledger   -> summary, report
             files     tasks    units     outcomes    manifest

`batch.py` walks that way once and `driver.py` is its loop; `local.py` runs units in threads of
this process. A runner on other machines implements the `Runner` protocol of `units.py` and
calls `worker.py` there; nothing else changes.

Where inputs and outputs lie is known in four places: `storage.py` and `remote.py` (a directory, a
URI), `desk.py` (manifest, log and lock there), `ferry.py` (files to and from a worker).
"""
