"""The policy pack and the gate."""
