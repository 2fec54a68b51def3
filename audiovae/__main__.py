"""`python -m audiovae`: the `audiovae` command."""

from __future__ import annotations

from audiovae.cli import main
from audiovae.commands import end_process

end_process(main())
