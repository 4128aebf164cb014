use proptest::prelude::*;

use super::*;

fn of(text: &str) -> Selector {
    text.parse().unwrap_or_else(|e| panic!("{e}"))
}

fn set(these: &[&str]) -> BTreeSet<String> {
    these.iter().map(|it| (*it).to_owned()).collect()
}

#[test]
fn reads_every_kind_of_term() {
    for (text, key, is) in [
        ("disk=ssd", "disk", Is::OneOf(set(&["ssd"]))),
        (" disk = ssd ", "disk", Is::OneOf(set(&["ssd"]))),
        ("region=us east", "region", Is::OneOf(set(&["us east"]))),
        ("url=a=b", "url", Is::OneOf(set(&["a=b"]))),
        ("disk!=ssd", "disk", Is::NotOneOf(set(&["ssd"]))),
        ("disk != ssd", "disk", Is::NotOneOf(set(&["ssd"]))),
        ("os.version>=12", "os.version", Is::Compare(Comparison::AtLeast, "12".into())),
        ("os.version <= 12.1~rc1", "os.version", Is::Compare(Comparison::AtMost, "12.1~rc1".into())),
        ("kernel<6.10", "kernel", Is::Compare(Comparison::Less, "6.10".into())),
        ("cpu > 4", "cpu", Is::Compare(Comparison::Greater, "4".into())),
        ("gpu", "gpu", Is::Present),
        ("!gpu", "gpu", Is::Absent),
        ("! gpu", "gpu", Is::Absent),
        ("zone in (a, b)", "zone", Is::OneOf(set(&["a", "b"]))),
        ("zone in(a,b , us east)", "zone", Is::OneOf(set(&["a", "b", "us east"]))),
        ("zone not in (a)", "zone", Is::NotOneOf(set(&["a"]))),
        ("zone  not  in (a)", "zone", Is::NotOneOf(set(&["a"]))),
        ("in in (in)", "in", Is::OneOf(set(&["in"]))),
        ("größe=l", "größe", Is::OneOf(set(&["l"]))),
    ] {
        assert_eq!(of(text), Selector { key: key.to_owned(), is }, "{text}");
    }
}

#[test]
fn says_what_was_expected_of_what_is_no_term() {
    for (text, want) in [
        ("", "there is no key"),
        ("=a", "there is no key"),
        ("!", "there is no key"),
        ("!=a", "a key has no '='"),
        ("!a=b", "a key has no '='"),
        ("disk=", "there is no value"),
        ("disk!=", "there is no value"),
        ("disk==ssd", "a value does not begin with `=`"),
        ("disk=>5", "a value does not begin with `>`"),
        ("disk=<5", "a value does not begin with `<`"),
        ("disk<>5", "a value does not begin with `>`"),
        ("disk!ssd", "expected key=value"),
        ("disk ssd", "expected key=value"),
        ("disk is ssd", "expected key=value"),
        ("disk inner", "expected key=value"),
        ("disk not (a)", "expected key=value"),
        ("in", "`in` stands between a key and its values"),
        ("!not", "`not` stands between"),
        ("!a b", "expected key=value"),
        ("zone in a", "expected the values in parentheses"),
        ("zone in (a", "expected the values in parentheses"),
        ("zone in (a) b", "expected the values in parentheses"),
        ("zone in ()", "there is no value"),
        ("zone in (a,,b)", "there is no value"),
        ("zone in (a, (b))", "no parentheses"),
        ("a\"b=c", "a key has no '\"'"),
        ("os.version>=new", "expected a whole number or a version"),
        ("os.version>=", "there is no value"),
        ("os.version>=12 and more", "expected a whole number or a version"),
        ("load<-5", "expected a whole number or a version"),
        ("memory>=8G", "write it out in bytes, here 8589934592"),
        ("memory>=1.5GiB", "write it out in bytes"),
    ] {
        let e = text.parse::<Selector>().unwrap_err().to_string();
        assert!(e.contains(want), "{text}: {e}");
    }
    let many: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    let e = format!("a in ({})", many.join(",")).parse::<Selector>().unwrap_err();
    assert!(e.to_string().contains("300 values, and at most 256"), "{e}");
}

#[test]
fn only_terms_that_deny_are_met_by_machines_without_the_key() {
    for (text, want) in [
        ("k=v", false),
        ("k in (v, w)", false),
        ("k<5", false),
        ("k<=5", false),
        ("k>=5", false),
        ("k>5", false),
        ("k", false),
        ("k!=v", true),
        ("k not in (v, w)", true),
        ("!k", true),
    ] {
        assert_eq!(of(text).meets(None), want, "{text}");
    }
}

#[test]
fn compares_numbers_and_versions() {
    for (text, value, want) in [
        ("k>=12", "12", true),
        ("k>=12", "12.1", true),
        ("k>=12", "9", false),
        ("k>12", "12", false),
        ("k<12", "12~rc1", true),
        ("k>=6.9", "6.10.3-amd64", true),
        ("k<=6.9", "6.10", false),
        ("memory>=8589934592", "17179869184", true),
        ("memory>=8589934592", "999999999", false),
        // Letters are older than figures.
        ("k<12", "bookworm", true),
    ] {
        assert_eq!(of(text).meets(Some(value)), want, "{text} {value}");
    }
}

fn value() -> impl Strategy<Value = Option<String>> {
    prop::option::of("[0-9a-c.~-]{0,4}")
}

proptest! {
    #[test]
    fn terms_that_say_the_opposite_are_complements(found in value(), v in "[0-9a-c.]{1,3}", w in "[0-9a-c.]{1,3}") {
        let found = found.as_deref();
        for (one, other) in [
            (format!("k={v}"), format!("k!={v}")),
            (format!("k in ({v}, {w})"), format!("k not in ({v}, {w})")),
            ("k".to_owned(), "!k".to_owned()),
        ] {
            prop_assert_ne!(of(&one).meets(found), of(&other).meets(found));
        }
        prop_assert_eq!(of(&format!("k in ({v})")), of(&format!("k={v}")));
        let either = of(&format!("k={v}")).meets(found) || of(&format!("k={w}")).meets(found);
        prop_assert_eq!(of(&format!("k in ({v}, {w})")).meets(found), either);
    }

    #[test]
    fn comparisons_divide_the_machines_that_have_the_key(found in value(), v in "[0-9][0-9a-c.~-]{0,3}") {
        let [less, at_most, at_least, greater] =
            ["<", "<=", ">=", ">"].map(|sign| of(&format!("k{sign}{v}")).meets(found.as_deref()));
        prop_assert_eq!(less ^ at_least, found.is_some());
        prop_assert_eq!(greater ^ at_most, found.is_some());
        prop_assert!(!(less && greater));
        prop_assert_eq!(at_most && at_least, found.is_some() && !less && !greater);
        let itself = ["<=", ">="].map(|sign| of(&format!("k{sign}{v}")).meets(Some(&v)));
        prop_assert_eq!(itself, [true, true]);
    }

    #[test]
    fn never_panics_and_is_read_back_as_it_is_shown(text in "!? ?[ab]( |=|!=|<=?|>=?| in | not in )[(]?[a1=<, ]{0,6}[)]?|.{0,20}", found in value()) {
        if let Ok(selector) = text.parse::<Selector>() {
            let _ = selector.meets(found.as_deref());
            prop_assert_eq!(selector.to_string().parse(), Ok(selector));
        }
    }
}
