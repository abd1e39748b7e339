"""The policy pack of the preview gate: what no change of a stack may weaken (docs/policy.md)."""
