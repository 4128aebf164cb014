//! Whether a unit file makes sense for a unit of a certain name.
//!
//! Judges the sections and everything in ours. Options that systemd has to
//! understand are systemd's business: versions differ in what they know.

use crate::{
    ProblemKind, UnitFile, UnitName, UnitType,
    problem::Found,
    requirements::{Requirements, SECTIONS, Subject},
    suggest::nearest,
};

/// What stands in for the instance when a template is checked: a text that is fit for every option
/// that an instance may be fit for, and that no literal name in a file will be equal to by chance.
const SAMPLE_INSTANCE: &str = "5a3e1c0ffee0ddba11f007ba115eed5a";

/// Checks a file, adds what is wrong to `found`, and returns what could be read of its requirements.
pub fn check(file: &UnitFile, name: &UnitName, found: &mut Found) -> Requirements {
    sections(file, name.unit_type(), found);
    let sample = if name.is_template() { name.with_instance(SAMPLE_INSTANCE).ok() } else { None };
    // The name of a template that is too long for the sample: what depends on it waits for an instance.
    let subject = match &sample {
        Some(sample) => Subject::Sample(sample),
        None if name.is_template() => Subject::Anybody,
        None => Subject::Unit(name),
    };
    Requirements::read(file, subject, found)
}

/// Returns the section that belongs to a type, and whether a unit is nothing without it.
const fn own_section(unit_type: UnitType) -> Option<(&'static str, bool)> {
    match unit_type {
        UnitType::Service => Some(("Service", true)),
        UnitType::Socket => Some(("Socket", true)),
        UnitType::Mount => Some(("Mount", true)),
        UnitType::Automount => Some(("Automount", true)),
        UnitType::Swap => Some(("Swap", true)),
        UnitType::Path => Some(("Path", true)),
        UnitType::Timer => Some(("Timer", true)),
        // systemd.slice(5): all its settings have defaults. systemd.target(5): it has no section.
        UnitType::Slice => Some(("Slice", false)),
        UnitType::Scope => Some(("Scope", false)),
        UnitType::Target | UnitType::Device => None,
    }
}

fn sections(file: &UnitFile, unit_type: UnitType, found: &mut Found) {
    match unit_type {
        UnitType::Scope => found.whole(ProblemKind::NoFiles { unit_type, page: "systemd.scope(5)" }),
        UnitType::Device => found.whole(ProblemKind::NoFiles { unit_type, page: "systemd.device(5)" }),
        _ => {}
    }
    let own = own_section(unit_type);
    if let Some((section, true)) = own
        && !file.has_section(section)
    {
        found.whole(ProblemKind::MissingSection { section, unit_type });
    }
    let mut ours = Vec::new();
    for (section, at) in &file.parsed().sections {
        let section = section.as_str();
        if SECTIONS.contains(&section) {
            ours.push(*at);
        } else if !matches!(section, "Unit" | "Install") && own.is_none_or(|(o, _)| o != section) {
            foreign(section, *at, own.map(|(o, _)| o), unit_type, found);
        }
    }
    if let [_, second, ..] = ours[..] {
        found.at(second, ProblemKind::BothSections);
    }
}

/// Judges a section that is neither systemd's for this type nor ours.
fn foreign(section: &str, at: usize, own: Option<&str>, unit_type: UnitType, found: &mut Found) {
    let prefixed = format!("X-{section}");
    let meant = nearest(section, own.into_iter().chain(["Unit", "Install"]).chain(SECTIONS))
        .or_else(|| SECTIONS.into_iter().find(|s| s.eq_ignore_ascii_case(&prefixed)));
    // systemd.unit(5): sections that begin with X- are ignored, and belong to whom they say. One that
    // is nearly ours would take a unit's requirements away without a word.
    if section.starts_with("X-") && !meant.is_some_and(|m| SECTIONS.contains(&m)) {
        return;
    }
    let expected = meant.map(|m| format!("[{m}]"));
    found.at(at, ProblemKind::WrongSection { section: section.to_owned(), unit_type, expected });
}
