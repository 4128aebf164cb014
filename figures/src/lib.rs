//! What benchmarks measured: the form of their samples, and the page and the plots that are made of them.
//!
//! Owns the lines of a samples file ([`mod@line`]), the facts about the computer that go with them ([`facts`]), the names
//! of the figures that the page looks for ([`what`]), and docs/performance.md with its pictures ([`page`]). The
//! benchmarks write with it; `cargo xtask bench report` reads with it. It never measures anything, and no figure on
//! the page is written here: what is in no sample is not measured, and the page says so.

pub mod facts;
pub mod keep;
pub mod line;
pub mod page;
pub mod series;
pub mod what;
