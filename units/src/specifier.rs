//! Specifiers in our section's values: `%n`, `%N`, `%p`, `%i` and `%%`, as in systemd.unit(5).

use crate::UnitName;

/// Tells whether a value's meaning depends on the unit's name.
///
/// # Errors
/// The byte of a `%` that begins no specifier of ours.
pub fn depends_on_name(value: &str) -> Result<bool, usize> {
    let mut depends = false;
    let mut chars = value.char_indices();
    while let Some((at, c)) = chars.next() {
        if c == '%' {
            match chars.next() {
                Some((_, '%')) => {}
                Some((_, 'n' | 'N' | 'p' | 'i')) => depends = true,
                _ => return Err(at),
            }
        }
    }
    Ok(depends)
}

/// Expands a value for a unit. `insert` makes what is inserted fit the place, for example by escaping
/// what would be a wildcard.
pub fn expand(value: &str, unit: &UnitName, insert: impl Fn(&str) -> String) -> String {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push_str(&insert(unit.as_str())),
            Some('N') => out.push_str(&insert(unit.without_suffix())),
            Some('p') => out.push_str(&insert(unit.prefix())),
            Some('i') => out.push_str(&insert(unit.instance().unwrap_or_default())),
            Some('%') => out.push('%'),
            // Not reached with values that `depends_on_name` accepts; systemd keeps such text too.
            Some(other) => out.extend(['%', other]),
            None => out.push('%'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table "Specifiers available in unit files" of systemd.unit(5).
    #[test]
    fn expands_as_systemd_does() {
        let all = |unit: &str| expand("%n|%N|%p|%i|%%i", &unit.parse().unwrap(), str::to_owned);
        assert_eq!(all("a@b@c.d.service"), "a@b@c.d.service|a@b@c.d|a|b@c.d|%i");
        assert_eq!(all("web.service"), "web.service|web|web||%i");
        assert_eq!(all("web@.service"), "web@.service|web@|web||%i");
    }

    #[test]
    fn knows_what_depends_on_the_name_and_what_is_no_specifier() {
        assert_eq!(depends_on_name("db.service"), Ok(false));
        assert_eq!(depends_on_name("100%%i"), Ok(false));
        assert_eq!(depends_on_name("%%%i"), Ok(true));
        assert_eq!(depends_on_name("ü%H"), Err(2));
        assert_eq!(depends_on_name("end%"), Err(3));
    }
}
