"""Around an upgrade: lay things down before it, watch during it, judge after it. For any cluster, however upgraded."""
