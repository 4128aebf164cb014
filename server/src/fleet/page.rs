//! Pages of lists, and the tokens that ask for the next.
//!
//! A token says how many items a page has and which page is meant, in two little-endian numbers of
//! 16 bits, base64 in the alphabet of URLs. fleet counted in 16 bits too, so that its lists began
//! anew after 65,535 items. Here a page above 65,535 has 16 more bits behind the two numbers, which
//! every token of fleet's lacks.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use base64::{Engine as _, engine::general_purpose::URL_SAFE};

use super::refusal::Refusal;

/// How many items a page has: fleet's own default (`token_limit`). Tokens name it, so a client that has
/// one from an earlier answer goes on only where it is the same.
pub(super) const PAGE_ITEMS: u16 = 100;

/// Which page of a list is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageToken {
    limit: u16,
    /// From 1.
    page: u32,
}

/// What a list is asked with.
#[derive(Debug)]
pub(super) struct ListRequest {
    page: PageToken,
    query: Vec<(String, String)>,
}

impl PageToken {
    const FIRST: Self = Self { limit: PAGE_ITEMS, page: 1 };

    /// Reads a token, of which only what was given out here is accepted.
    fn read(text: &str) -> Result<Self, &'static str> {
        let bytes = URL_SAFE.decode(text).map_err(|_| "invalid nextPageToken: it is not base64")?;
        let (limit, low, high) = match bytes[..] {
            [a, b, c, d] => ([a, b], [c, d], [0, 0]),
            [a, b, c, d, e, f] => ([a, b], [c, d], [e, f]),
            _ => return Err("invalid nextPageToken: it has the wrong length"),
        };
        let page = u32::from_le_bytes([low[0], low[1], high[0], high[1]]);
        let token = Self { limit: u16::from_le_bytes(limit), page };
        if token.limit != PAGE_ITEMS {
            return Err("invalid nextPageToken: its page has another size than the pages here");
        }
        if token.page == 0 {
            return Err("invalid nextPageToken: pages begin with 1");
        }
        Ok(token)
    }

    fn write(self) -> String {
        let [a, b] = self.limit.to_le_bytes();
        let [c, d, e, f] = self.page.to_le_bytes();
        match (e, f) {
            (0, 0) => URL_SAFE.encode([a, b, c, d]),
            _ => URL_SAFE.encode([a, b, c, d, e, f]),
        }
    }

    /// Returns how many items come before the page.
    pub(super) fn skip(self) -> usize {
        usize::try_from(u64::from(self.page - 1) * u64::from(self.limit)).unwrap_or(usize::MAX)
    }

    /// Returns how many items the page has at most.
    pub(super) fn limit(self) -> usize {
        usize::from(self.limit)
    }

    /// Returns the token of the next page, if a page with so many items may have one. As fleet's, a list
    /// that fills its last page has an empty one behind it.
    pub(super) fn next(self, items: usize) -> Option<String> {
        let page = self.page.checked_add(1).filter(|_| items >= self.limit())?;
        Some(Self { page, ..self }.write())
    }
}

impl ListRequest {
    pub(super) fn page(&self) -> PageToken {
        self.page
    }

    /// Returns the first value of a parameter; an empty one is none.
    pub(super) fn filter(&self, name: &str) -> Option<&str> {
        let first = self.query.iter().find(|(key, _)| key == name);
        first.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }
}

impl<S: Sync> FromRequestParts<S> for ListRequest {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Refusal> {
        let query = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let Query(query) = query.map_err(|e| Refusal::bad_request(e.to_string()))?;
        let mut tokens = query.iter().filter(|(key, _)| key == "nextPageToken").map(|(_, value)| value);
        let page = match (tokens.next(), tokens.next()) {
            (None, _) => PageToken::FIRST,
            (Some(token), None) => PageToken::read(token).map_err(Refusal::bad_request)?,
            (Some(_), Some(_)) => return Err(Refusal::bad_request("too many values for nextPageToken")),
        };
        Ok(Self { page, query })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// fleet's own vectors.
    #[test]
    fn tokens_are_fleets() {
        for (limit, page, text) in [(19, 11_852, "EwBMLg=="), (45, 9, "LQAJAA==")] {
            assert_eq!(PageToken { limit, page }.write(), text);
            assert_eq!(URL_SAFE.decode(text).map(|bytes| bytes.len()), Ok(4));
        }
        assert_eq!(PageToken::FIRST.next(100).as_deref(), Some("ZAACAA=="));
        assert_eq!(PageToken::read("ZAACAA=="), Ok(PageToken { limit: 100, page: 2 }));
        assert_eq!(PageToken::FIRST.next(99), None);
    }

    #[test]
    fn foreign_tokens_are_refused() {
        for text in ["", "x", "ZAACAA", "ZAAAAA==", "EwBMLg==", "ZAACAAA=", "ZAACAAAAAAA="] {
            assert!(PageToken::read(text).is_err(), "{text}");
        }
    }

    /// fleet's numbers wrapped at 65,536 items, and its pages at 65,536.
    #[test]
    fn pages_go_on_beyond_sixteen_bits() {
        let mut token = PageToken { limit: PAGE_ITEMS, page: 655 };
        for page in 656..=700 {
            token = PageToken::read(&token.next(100).expect("another page")).expect("our own");
            assert_eq!(token.page, page);
        }
        assert_eq!(token.skip(), 69_900);
        let last = PageToken { limit: PAGE_ITEMS, page: 65_535 };
        let next = PageToken::read(&last.next(100).expect("another page")).expect("our own");
        assert_eq!((next.page, next.skip()), (65_536, 6_553_500));
    }

    proptest! {
        #[test]
        fn every_page_comes_back(page in 1..=u32::MAX) {
            let token = PageToken { limit: PAGE_ITEMS, page };
            prop_assert_eq!(PageToken::read(&token.write()), Ok(token));
        }

        #[test]
        fn no_text_is_too_much(text in ".{0,40}") {
            let _answered = PageToken::read(&text);
        }
    }
}
