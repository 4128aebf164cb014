//! Names as paths and headers carry them.

/// Tells whether a segment of a path is one that URLs give another meaning: it would lead elsewhere.
pub(super) fn is_dots(segment: &str) -> bool {
    let plain = segment.to_ascii_lowercase().replace("%2e", ".");
    plain == "." || plain == ".."
}

/// Escapes one segment of a path: unit names contain `@`, `:` and `\`.
pub(super) fn escape(segment: &str) -> String {
    let mut out = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'@' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Writes a user's name for a header, which has room for ASCII only: everything else as `%` and two digits.
#[must_use]
pub fn header_of_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Reads what [`header_of_name`] wrote.
#[must_use]
pub fn name_of_header(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_comes_through_a_header() {
        for (name, header) in [("ada", "ada"), ("uid 7", "uid 7"), ("zoë", "zo%C3%AB"), ("50%", "50%25")] {
            assert_eq!(header_of_name(name), header);
            assert_eq!(name_of_header(header).as_deref(), Some(name));
        }
        for bad in ["%", "%2", "%zz", "%FF"] {
            assert_eq!(name_of_header(bad), None, "{bad}");
        }
    }
}
