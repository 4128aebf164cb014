//! HTTP routes, forwarding between machines, the merged journal.
