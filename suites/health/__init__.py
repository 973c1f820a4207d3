"""Whether the control plane and the nodes are well, by their own account and by what can be seen of them."""
