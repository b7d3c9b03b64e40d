"""The range test on what another framework holds, and the way back to its scheduler."""
