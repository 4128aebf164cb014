//! A unit that counts in its journal, so that a lost or late line is noticed.

/// Counts, a hundred lines a second, without a process for each. Perl is in every Debian.
pub const COUNT: &str =
    "$| = 1;\nfor (my $n = 1; ; $n++) { print \"$n\\n\"; select(undef, undef, undef, 0.01); }\n";

/// Where [`COUNT`] has to be on a machine.
pub const COUNT_AT: &str = "/root/count.pl";

/// The unit file that runs [`COUNT`].
pub const COUNTER: &str = "[Service]\nExecStart=/usr/bin/perl /root/count.pl\n";
