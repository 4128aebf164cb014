//! The values of single options. Errors say only what is wrong and what was expected.

use std::ops::RangeInclusive;

use super::{options::Opt, read::bad};
use crate::{
    Glob, MachineChoice, MachineId, PreferTerm, Preference, ProblemKind, Selector, UnitName, amount,
    selector, words::is_blank,
};

/// How many ports a unit may reserve: each is an entry in the machine's account. A thousand is far above
/// the media servers and file transfers that want ranges.
pub const MAX_PORTS: usize = 1024;

/// How few digits tell machines apart well enough: fleet showed and took eight.
const MIN_PREFIX: usize = 8;

/// How long a host name may be, in bytes: Linux's `HOST_NAME_MAX`.
const MAX_HOST: usize = 64;

/// The weight of a wish that gives none.
const DEFAULT_WEIGHT: i8 = 10;

/// Reads a machine's id, how one begins, or a host name.
pub fn machine(text: &str) -> Result<MachineChoice, String> {
    const EXPECTED: &str = "expected the 32 hexadecimal digits of /etc/machine-id, at least 8 of them from its \
                            begin, or a host name; `flotctl list-machines --full` shows them";
    let lower = text.to_ascii_lowercase();
    // Also as some tools write ids: in five groups.
    let plain = if lower.len() == 36 { lower.replace('-', "") } else { lower.clone() };
    let hex = plain.bytes().all(|b| b.is_ascii_hexdigit());
    if hex && plain.len() == 32 {
        return match plain.parse::<MachineId>() {
            Ok(id) => Ok(id.into()),
            Err(_) => Err(format!("no machine has the id that is all zero; {EXPECTED}")),
        };
    }
    let label = |it: &str| {
        let fit = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        !it.is_empty() && it.bytes().all(fit) && !it.starts_with('-') && !it.ends_with('-')
    };
    match lower.len() {
        MIN_PREFIX..32 if hex => Ok(MachineChoice::Prefix(lower)),
        33.. if hex => Err(format!("it has {} digits; {EXPECTED}", lower.len())),
        1..=MAX_HOST if lower.split('.').all(label) => Ok(MachineChoice::Host(lower)),
        _ => Err(EXPECTED.to_owned()),
    }
}

/// Reads a unit's name or a pattern. Names are taken as they are, backslashes too.
pub fn peer(option: Opt, text: &str, pattern: impl Fn() -> String) -> Result<Glob, ProblemKind> {
    if text.contains(['*', '?', '[']) {
        return pattern().parse().map_err(|error| ProblemKind::BadGlob { option: option.name(), error });
    }
    let peer: UnitName =
        text.parse().map_err(|error| ProblemKind::BadName { option: option.name(), error })?;
    if peer.is_template() {
        let all = format!("{}@*.{}", peer.prefix(), peer.unit_type());
        let why =
            format!("a template runs nowhere; expected one of its instances, or `{all}` for any of them");
        return Err(bad(option, text, why));
    }
    Ok((&peer).into())
}

/// Reads a term of `MachineMetadata=`. fleet let a line with two `=` pass and then asked for nothing at
/// all, which ran units on machines that they were kept from.
pub fn metadata(text: &str) -> Result<Selector, String> {
    let words: Vec<&str> = text.split(is_blank).filter(|w| !w.is_empty()).collect();
    let terms = words.iter().filter(|w| w.starts_with('!') || w.contains(['=', '<', '>'])).count();
    if terms > 1 {
        let quoted: Vec<String> = words.iter().map(|w| format!("\"{w}\"")).collect();
        return Err(format!("several on one line are quoted one by one: {}", quoted.join(" ")));
    }
    selector::term(text)
}

/// Tells whether a term is written `key=value`.
pub fn is_equal(text: &str) -> bool {
    let sign = text.find(['=', '!', '<', '>', '(']);
    sign.is_some_and(|at| text[at..].starts_with('='))
}

/// Reads `[WEIGHT] TERM`.
pub fn preference(option: Opt, text: &str, pattern: impl Fn() -> String) -> Result<Preference, ProblemKind> {
    let refuse = |why: String| bad(option, text, why);
    let (weight, rest) = match text.split_once(is_blank) {
        Some((first, rest)) if is_number(first) => (weight(first).map_err(refuse)?, rest),
        None if is_number(text) => {
            return Err(refuse("a term follows the weight, for example 50 disk=ssd".into()));
        }
        _ => (DEFAULT_WEIGHT, text),
    };
    let rest = rest.trim_matches(is_blank);
    if rest.contains('"') {
        return Err(refuse("the quotes go around the whole of it: \"50 region=us east\"".into()));
    }
    let term = if let Some(glob) = rest.strip_prefix("MachineOf=") {
        let pattern = || pattern().split_once("MachineOf=").map_or_else(String::new, |(_, it)| it.to_owned());
        PreferTerm::MachineOf(peer(option, glob.trim_matches(is_blank), pattern)?)
    } else if let Some(key) = rest.strip_prefix("Spread=") {
        PreferTerm::Spread(selector::key(key.trim_matches(is_blank)).map_err(refuse)?)
    } else {
        PreferTerm::Metadata(metadata(rest).map_err(refuse)?)
    };
    Ok(Preference { weight, term })
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn weight(text: &str) -> Result<i8, String> {
    let weight = text.parse().ok().filter(|it: &i8| (-100..=100).contains(it) && *it != 0);
    weight.ok_or_else(|| format!("`{text}` is no weight; expected -100 to 100 and not 0"))
}

/// systemd's `parse_boolean`.
pub fn boolean(text: &str) -> Result<bool, String> {
    let is = |words: &[&str]| words.iter().any(|w| w.eq_ignore_ascii_case(text));
    if is(&["1", "yes", "y", "true", "t", "on"]) {
        Ok(true)
    } else if is(&["0", "no", "n", "false", "f", "off"]) {
        Ok(false)
    } else {
        Err("expected one of 1 yes y true t on, 0 no n false f off".to_owned())
    }
}

pub fn at_least_one(text: &str) -> Result<u32, String> {
    let number = plain(text).filter(|it| *it > 0);
    number.ok_or_else(|| "expected a whole number from 1".to_owned())
}

pub fn priority(text: &str) -> Result<i16, String> {
    let number = if is_number(text) { text.parse().ok() } else { None };
    let number = number.filter(|it| (-1000..=1000).contains(it));
    number.ok_or_else(|| "expected a whole number from -1000 to 1000".to_owned())
}

/// Reads processors, as `1.5` or `150%`, in thousandths of one.
pub fn cpu(text: &str) -> Result<u64, String> {
    let milli = match text.strip_suffix('%') {
        Some(percent) => amount::decimal(percent, 1),
        None => amount::decimal(text, 3),
    };
    let expected = "expected processors, for example 1.5 or 150%, in steps of a thousandth";
    milli.ok_or_else(|| expected.to_owned())
}

pub fn memory(text: &str) -> Result<u64, String> {
    let expected = "expected a size, for example 512M or 1.5G (units K, M, G, T, P, E with base 1024)";
    amount::size(text).ok_or_else(|| expected.to_owned())
}

/// Reads `NAME=N`.
pub fn resource(text: &str) -> Result<(String, u64), String> {
    const EXPECTED: &str = "expected NAME=N with a whole number from 1, for example gpu=1";
    let (name, number) = text.split_once('=').ok_or(EXPECTED)?;
    if let Some(own) = match name {
        "cpu" => Some("ReserveCPU="),
        "memory" => Some("ReserveMemory="),
        _ => None,
    } {
        return Err(format!("expected {own} for `{name}`"));
    }
    let name = selector::key(name).map_err(|_| EXPECTED)?;
    let number = plain(number).filter(|it| *it > 0).ok_or(EXPECTED)?;
    Ok((name, number))
}

/// Reads a port or a range of them.
pub fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let port = |text: &str| plain::<u16>(text).filter(|it| *it > 0);
    let range = match text.split_once('-') {
        Some((from, to)) => port(from).zip(port(to)).filter(|(from, to)| from <= to),
        None => port(text).map(|it| (it, it)),
    };
    match range {
        Some((from, to)) if usize::from(to - from) >= MAX_PORTS => Err(too_many_ports()),
        Some((from, to)) => Ok(from..=to),
        None => Err("expected a port from 1 to 65535, or a range such as 8000-8010".to_owned()),
    }
}

pub fn too_many_ports() -> String {
    format!("that makes more than {MAX_PORTS} ports; expected fewer")
}

/// Reads a whole number without a sign.
fn plain<N: std::str::FromStr>(text: &str) -> Option<N> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}
