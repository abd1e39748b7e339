"""Which archives stay, and removing the others."""
