//! Unit names as D-Bus object paths, and back.
//!
//! systemd names a unit's object by its name with every byte outside `[A-Za-z0-9]` (and a leading
//! digit) written as `_xx`.

use std::fmt::Write as _;

/// Below this every unit has its object.
const UNITS: &str = "/org/freedesktop/systemd1/unit/";

/// Returns the object path of a unit.
pub(super) fn object_path(unit: &str) -> String {
    let mut path = String::with_capacity(UNITS.len() + unit.len() + 16);
    path.push_str(UNITS);
    if unit.is_empty() {
        path.push('_');
    }
    for (at, byte) in unit.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (at > 0 && byte.is_ascii_digit()) {
            path.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(path, "_{byte:02x}");
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unescape(path: &str) -> Option<String> {
        let mut bytes = Vec::new();
        let mut rest = path.strip_prefix(UNITS)?.bytes();
        while let Some(b) = rest.next() {
            if b == b'_' {
                let digits = [rest.next()?, rest.next()?];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
            } else {
                bytes.push(b);
            }
        }
        String::from_utf8(bytes).ok()
    }

    #[test]
    fn known_paths() {
        assert_eq!(object_path("web@1.service"), "/org/freedesktop/systemd1/unit/web_401_2eservice");
        assert_eq!(
            object_path("1a-b\\x2dc.service"),
            "/org/freedesktop/systemd1/unit/_31a_2db_5cx2dc_2eservice"
        );
    }

    proptest! {
        #[test]
        fn every_name_comes_back(name in "\\PC{1,64}") {
            let path = object_path(&name);
            prop_assert!(zbus::wire::ObjectPath::try_from(path.as_str()).is_ok());
            prop_assert_eq!(unescape(&path), Some(name));
        }

        #[test]
        fn different_names_have_different_paths(a in "[a-z0-9@:_.\\\\-]{1,12}", b in "[a-z0-9@:_.\\\\-]{1,12}") {
            prop_assert_eq!(a == b, object_path(&a) == object_path(&b));
        }
    }
}
