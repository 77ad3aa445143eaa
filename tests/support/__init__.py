"""What several tests share."""

import pytest

# Those that assert: explained as a test's own assertions are.
pytest.register_assert_rewrite(
    "support.command_line", "support.hub_runs", "support.other_interpreter"
)
