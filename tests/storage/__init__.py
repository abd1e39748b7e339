"""Storage as code, through the real engine: provider doubles in the place of the clouds' own."""
