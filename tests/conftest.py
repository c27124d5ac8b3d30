"""How hard property tests look: OPENCLAW_EXAMPLES sets the number of examples of each."""

import os

from hypothesis import settings

# No deadline: how long an example takes says more about the machine than about the code.
settings.register_profile("openclaw", deadline=None, max_examples=int(os.environ.get("OPENCLAW_EXAMPLES", "50")))
settings.load_profile("openclaw")
