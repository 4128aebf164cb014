//! Amounts as systemd writes them: sizes with units, and shares in percent.

/// The units of sizes with base 1024, the largest first.
const UNITS: [(&str, u32); 8] =
    [("E", 60), ("P", 50), ("T", 40), ("G", 30), ("M", 20), ("K", 10), ("B", 0), ("", 0)];

/// Reads a size as systemd's `parse_size` does with base 1024: `512M`, `1.5G`, also `1G 512M` with the
/// larger units first.
pub fn size(text: &str) -> Option<u64> {
    let (mut rest, mut units, mut sum) = (text, &UNITS[..], 0_u128);
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\n', '\r']);
        let (whole, after) = digits(rest)?;
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after).map_or((Some(""), after), |(it, after)| (Some(it), after)),
            None => (None, after),
        };
        let after = after.trim_start_matches([' ', '\t', '\n', '\r']);
        let at = units.iter().position(|(unit, _)| after.starts_with(unit))?;
        let (unit, shift) = units[at];
        sum += u128::from(whole.parse::<u64>().ok()?) << shift;
        sum += part_of(fraction.unwrap_or_default(), 1 << shift);
        rest = &after[unit.len()..];
        units = &units[at + 1..];
        if rest.is_empty() {
            return sum.try_into().ok();
        }
    }
}

/// Returns what a decimal fraction of a factor comes to, cut to a whole number.
fn part_of(fraction: &str, factor: u128) -> u128 {
    // Eighteen decimals of the largest factor still fit, and the rest is less than a byte.
    let kept = &fraction[..fraction.len().min(18)];
    let scale = 10_u128.pow(kept.len() as u32);
    kept.parse::<u128>().map_or(0, |it| it * factor / scale)
}

/// Takes decimal digits off the front of a text; at least one.
fn digits(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// Reads a share as systemd's `parse_permyriad_unbounded` does, in ten-thousandths: `150%`, `12.5%`, `5‰`.
pub fn permyriad(text: &str) -> Option<u64> {
    for (sign, decimals) in [('%', 2), ('‰', 1), ('‱', 0)] {
        if let Some(number) = text.strip_suffix(sign) {
            return decimal(number, decimals);
        }
    }
    None
}

/// Reads a decimal number without a sign, in units of its last allowed decimal: with two decimals, `1.5`
/// is 150.
pub fn decimal(text: &str, decimals: usize) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(w, f)| (w, Some(f)));
    let plain = |it: &str| !it.is_empty() && it.bytes().all(|b| b.is_ascii_digit());
    if !plain(whole) || fraction.is_some_and(|it| !plain(it) || it.len() > decimals) {
        return None;
    }
    let fraction = fraction.unwrap_or_default();
    format!("{whole}{fraction:0<decimals$}").parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// systemd's `parse_size` with base 1024.
    #[test]
    fn reads_sizes_as_systemd_does() {
        for (text, want) in [
            ("0", Some(0)),
            ("111", Some(111)),
            ("111.4", Some(111)),
            (" 112 B", Some(112)),
            ("3.5 K", Some(3 * 1024 + 512)),
            ("3. M 0.5K", Some(3 * 1024 * 1024 + 512)),
            ("3.4 M", Some(3_565_158)),
            ("1G 512M", Some(1536 * 1024 * 1024)),
            ("1.5G", Some(1536 * 1024 * 1024)),
            ("15E", Some(15 << 60)),
            ("16E", None),
            ("", None),
            ("12P12Z", None),
            ("512MB", None),
            ("512m", None),
            ("1M 1G", None),
            ("-5", None),
            ("1G ", None),
            ("infinity", None),
        ] {
            assert_eq!(size(text), want, "{text}");
        }
    }

    #[test]
    fn reads_shares_as_systemd_does() {
        for (text, want) in [
            ("150%", Some(15_000)),
            ("12.5%", Some(1_250)),
            ("0.01%", Some(1)),
            ("5‰", Some(50)),
            ("7‱", Some(7)),
            ("12.345%", None),
            ("150", None),
            ("-1%", None),
            (".5%", None),
            ("1.%", None),
        ] {
            assert_eq!(permyriad(text), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_whole_numbers_are_bytes(text in "[0-9 .EGMKB%]{0,24}|.{0,12}", n in any::<u64>()) {
            let _ = (size(&text), permyriad(&text), decimal(&text, 3));
            prop_assert_eq!(size(&n.to_string()), Some(n));
        }
    }
}
