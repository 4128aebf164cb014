//! What has to hold for any bytes at all. The fuzz target and the replay of its
//! corpus call it, nobody else does.

use crate::{
    ContentHash, Escapes, Glob, Selector, SourceName, UnitFile, UnitName, escape, quote_word, split_words,
    unescape,
};

/// Reads bytes as everything that this crate reads.
///
/// # Panics
/// Something that has to hold does not.
pub fn fuzz(bytes: &[u8]) {
    match UnitFile::parse("fuzz.service", bytes) {
        Ok(file) => {
            assert_eq!(file.text().as_bytes(), bytes, "the text is kept");
            unit_file(&file);
            // What is fit for a file is fit for the rest; long texts only repeat it.
            file.text().lines().take(100).for_each(text);
        }
        Err(refused) => assert!(!refused.render().is_empty()),
    }
}

fn unit_file(file: &UnitFile) {
    assert_eq!(file.hash(), ContentHash::of(file.text().as_bytes()));
    for a in file.assignments() {
        assert!(a.line >= 1 && a.column >= 1 && !a.key.is_empty());
        assert!(file.has_section(a.section));
        assert_eq!(a.value.trim_matches([' ', '\t', '\n', '\r']), a.value);
    }
    // Reading what was read, written plainly, gives the same.
    let mut plain = String::new();
    for a in file.assignments() {
        plain.push_str(&format!("[{}]\n{}={}\n", a.section, a.key, a.value));
    }
    if plain.len() <= crate::MAX_BYTES && !plain.contains('\\') {
        let again = UnitFile::parse("again.service", plain.as_bytes()).map(|again| {
            let all = |f: &UnitFile| -> Vec<(String, String)> {
                f.assignments().map(|a| (format!("{}/{}", a.section, a.key), a.value.to_owned())).collect()
            };
            assert_eq!(all(&again), all(file));
        });
        assert!(again.is_ok(), "what was read once is read again");
    }
    assert!(file.runs_like(file));
    if let Ok(options) = crate::fleet_options(file.text()) {
        let normal = crate::fleet_normal_form(&options);
        let again = crate::fleet_options(&normal);
        assert!(again.is_ok_and(|again| crate::fleet_normal_form(&again) == normal), "the normal form stays");
    }
    for name in
        ["a.service", "a@.service", "a@1.timer", "a.scope"].map(str::parse::<UnitName>).into_iter().flatten()
    {
        match file.validate(&name) {
            Ok(requirements) if !name.is_template() => {
                assert!(requirements.for_unit(&name).is_ok(), "what is valid can be placed");
            }
            Ok(_) => {}
            Err(problems) => assert!(!problems.render().is_empty()),
        }
    }
}

fn text(text: &str) {
    if let Ok(name) = text.parse::<UnitName>() {
        assert_eq!(name.as_str(), text);
        assert_eq!(name.template().is_some(), name.is_instance());
    }
    if let Ok(source) = SourceName::mangle(text) {
        assert_eq!(SourceName::mangle(source.as_str()).as_ref(), Ok(&source));
    }
    assert_eq!(unescape(&escape(text)).as_deref(), Ok(text));
    let _ = (unescape(text), crate::escape_path(text), crate::unescape_path(text));
    let literal = Glob::escape(text).parse::<Glob>();
    assert!(literal.map_or(text.len() > crate::GLOB_MAX / 2, |g| g.literal() == Some(text)));
    let _ = text.parse::<Glob>().map(|g| g.matches(text));
    if let Ok(selector) = text.parse::<Selector>() {
        // A machine with and one without the key; what denies one value is met by the latter.
        let _ = (selector.meets(Some(text)), selector.meets(None));
        assert_eq!(selector.to_string().parse(), Ok(selector));
    }
    assert!(crate::compare_versions(text, text).is_eq());
    let quoted = split_words(&quote_word(text), Escapes::Resolve);
    assert!(quoted.is_ok_and(|words| words.len() == 1 && words[0].text == text));
    let _ = (split_words(text, Escapes::Resolve), split_words(text, Escapes::Keep));
}
