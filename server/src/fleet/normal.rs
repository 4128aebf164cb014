//! A unit's text as fleet's options, and options as the text that fleet made of them.
//!
//! What is read and written is in `units`; here it meets the wire.

use flotilla_units::{FleetOption, fleet_hash, fleet_normal_form, fleet_options};

use super::schema::UnitOption;

impl From<FleetOption> for UnitOption {
    fn from(FleetOption { section, name, value }: FleetOption) -> Self {
        Self { name, section, value }
    }
}

/// Reads a stored text. What is stored was valid when it came; of a text that is not, nothing is shown.
fn read(text: &str) -> Vec<FleetOption> {
    fleet_options(text).unwrap_or_default()
}

/// Returns the options of a text.
pub(super) fn options(text: &str) -> Vec<UnitOption> {
    read(text).into_iter().map(UnitOption::from).collect()
}

/// Returns the text as fleet would have stored it.
pub(super) fn form(text: &str) -> String {
    fleet_normal_form(&read(text))
}

/// Returns fleet's hash of a text, in hexadecimal.
pub(super) fn hash(text: &str) -> String {
    fleet_hash(&read(text))
}

/// Writes options as text, without the blanks around their values, if that text says the same again: a line break or a name with a `=` in it
/// would say something else.
pub(super) fn text_of(wanted: &[UnitOption]) -> Result<String, String> {
    let wanted: Vec<FleetOption> =
        wanted.iter().map(|it| FleetOption::new(&it.section, &it.name, it.value.trim())).collect();
    let text = fleet_normal_form(&wanted);
    let said =
        fleet_options(&text).map_err(|e| format!("the options cannot be written in a unit file: {e}"))?;
    // Both in the order of the text: it has each section's options together.
    let (mut wanted, mut again) = (wanted, said.clone());
    wanted.sort_by(|a, b| a.section.cmp(&b.section));
    again.sort_by(|a, b| a.section.cmp(&b.section));
    if wanted == again {
        return Ok(text);
    }
    let odd = wanted.iter().zip(&again).find(|(wanted, said)| wanted != said).map(|(wanted, _)| wanted);
    let Some(odd) = odd.or(wanted.last()) else { return Ok(text) };
    Err(format!(
        "the option {:?} of the section {:?} with the value {:?} cannot be written in a unit file",
        odd.name, odd.section, odd.value
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(section: &str, name: &str, value: &str) -> UnitOption {
        UnitOption { section: section.to_owned(), name: name.to_owned(), value: value.to_owned() }
    }

    #[test]
    fn options_come_back_as_they_were_sent() {
        let sent = [
            option("Unit", "Description", "a \\\n  # kept here\\\n b"),
            option("Service", "ExecStart", ""),
            option("Service", "ExecStart", "/bin/true a=b"),
        ];
        let text = text_of(&sent).expect("they can be written");
        assert_eq!(options(&text), sent);
        assert_eq!(form(&format!("# more\n\n{text}")), text);
        let apart = [option("A", "b", "1"), option("C", "d", "2"), option("A", "e", "3")];
        assert_eq!(text_of(&apart).as_deref(), Ok("[A]\nb=1\ne=3\n\n[C]\nd=2\n"));
        assert_eq!(text_of(&[]).as_deref(), Ok(""));
    }

    #[test]
    fn blanks_around_a_value_are_nobodys() {
        let sent =
            [option("Service", "A", " b "), option("Service", "B", "c\n"), option("Service", "C", " ")];
        assert_eq!(text_of(&sent).as_deref(), Ok("[Service]\nA=b\nB=c\nC=\n"));
    }

    #[test]
    fn what_no_unit_file_can_say_is_refused() {
        for bad in [
            option("Service", "ExecStart", "/bin/true\nUser=root"),
            option("Service", "ExecStart", "/bin/true\n[X-Fleet]\nGlobal=true"),
            option("Service]\n[Unit", "A", "b"),
            option("Service", "Exec=Start", "b"),
            option("Service", "#A", "b"),
        ] {
            let two = [option("Service", "First", "1"), bad.clone(), option("Service", "Last", "2")];
            assert!(text_of(std::slice::from_ref(&bad)).is_err(), "{bad:?}");
            assert!(text_of(&two).is_err(), "{bad:?}");
        }
    }
}
