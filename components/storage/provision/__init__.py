"""Storage as code: components that make what archives are kept in, and options for them."""
