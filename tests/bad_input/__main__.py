"""Write docs/reference/errors.md anew: ``python -m tests.bad_input``."""

from tests.bad_input.sections import PAGE, page

PAGE.write_text(page(), encoding="utf-8")
