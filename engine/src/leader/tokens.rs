//! Fencing tokens: who gives them out, and up to which mark.
//!
//! `cluster.tokens_reserved` is the mark up to which any leader may have given tokens out. A leader
//! starts above the mark that it was elected with, whatever its predecessor had left of its block,
//! and raises the mark, in a fenced transaction, before it gives out a token above it.

use flotilla_registry::records::{Cluster, Token};

use super::backlog::PLANNED_MAX;

/// How many tokens are reserved at once. A hundred thousand: ten more writes for a million placements,
/// and at a block for every new leader or unknown outcome the 48 bits last for ever.
pub const BLOCK: u64 = 100_000;

/// When fewer than this are left, the next block is reserved before anything else is planned: as many as one step
/// places of a large order.
pub const LOW: u64 = PLANNED_MAX as u64;

/// The tokens that this leader may give out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// The next one's counter.
    next: u64,
}

impl Tokens {
    /// Starts above everything that was reserved when this leader was elected.
    #[must_use]
    pub const fn above(elected_with: &Cluster) -> Self {
        Self { next: elected_with.tokens_reserved + 1 }
    }

    /// Tells how many are left below the mark.
    #[must_use]
    pub const fn left(&self, cluster: &Cluster) -> u64 {
        (cluster.tokens_reserved + 1).saturating_sub(self.next)
    }

    /// Returns the next token; `None` when the block is used up.
    pub fn take(&mut self, cluster: &Cluster) -> Option<Token> {
        if self.next > cluster.tokens_reserved {
            return None;
        }
        let token = Token::new(cluster.epoch, self.next)?;
        self.next += 1;
        Some(token)
    }

    /// Gives up what is left below a mark: a transaction of unknown outcome may still use it.
    pub fn skip(&mut self, cluster: &Cluster) {
        self.next = self.next.max(cluster.tokens_reserved + 1);
    }

    /// Returns the cluster's record with the next block reserved.
    #[must_use]
    pub fn reserve(cluster: &Cluster) -> Cluster {
        Cluster { tokens_reserved: cluster.tokens_reserved + BLOCK, ..cluster.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(tokens_reserved: u64) -> Cluster {
        Cluster { v: 1, id: "c".to_owned(), epoch: 3, terms: Vec::new(), tokens_reserved }
    }

    #[test]
    fn no_token_is_above_the_mark_nor_from_the_former_leaders_block() {
        let elected_with = cluster(20_000);
        let mut tokens = Tokens::above(&elected_with);
        assert_eq!(tokens.take(&elected_with), None);
        assert_eq!(tokens.left(&elected_with), 0);
        let mut cluster = Tokens::reserve(&elected_with);
        assert_eq!(tokens.left(&cluster), BLOCK);
        assert_eq!(tokens.take(&cluster), Token::new(3, 20_001));
        assert_eq!(tokens.take(&cluster), Token::new(3, 20_002));
        tokens.skip(&cluster);
        assert_eq!(tokens.take(&cluster), None);
        cluster = Tokens::reserve(&cluster);
        assert_eq!(tokens.take(&cluster), Token::new(3, 20_001 + BLOCK));
    }
}
