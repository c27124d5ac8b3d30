"""What holds for every test: how hard property tests look, and that Ctrl-C reaches the programs under test.

OPENCLAW_EXAMPLES sets the number of examples of each property.
"""

import os
import signal

from hypothesis import settings

# No deadline: how long an example takes says more about the machine than about the code.
settings.register_profile("openclaw", deadline=None, max_examples=int(os.environ.get("OPENCLAW_EXAMPLES", "50")))
settings.load_profile("openclaw")

# A shell that runs the tests in its background has them ignore SIGINT, and whatever they start inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)
