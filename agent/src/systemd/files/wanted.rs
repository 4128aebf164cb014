//! The links by which other units of the machine want one: what its `[Install]` says.
//!
//! They are made before the text is written and removed before it is, so that a text that is there has all
//! of its links. Which there are is written down before the first is made
//! (`/run/flotilla/wanted/<unit>`): what is written may be more than there is, never less, so that nothing
//! is left after an agent that was killed in between. A link of the same name that is not flotilla's is left
//! alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use flotilla_units::{UnitFile, UnitName, Wants};

use super::{Files, SystemdError, failed, is_ordered, kind, link, read, remove, remove_if_empty, write};
use crate::adoption::EARLY;

/// The section, as it has to be in a text that is worth parsing.
const SECTION: &str = "[Install]";

/// The longest name of a unit that wants others: its directory's name has room for `.requires`.
const LONGEST_NAME: usize = 255 - ".requires".len();

/// Who wants a unit, and how.
type Links = BTreeSet<(UnitName, Wants)>;

impl Files {
    /// Returns the units by which another set of units would be wanted, or required, if this were the unit's
    /// text, or if it had none.
    pub(in crate::systemd) fn link_changes(
        &self,
        unit: &UnitName,
        text: Option<&str>,
    ) -> Result<BTreeSet<UnitName>, SystemdError> {
        let asked = asked(unit, text);
        let there: Links = self.noted(unit)?.into_iter().filter(|it| self.is_linked(unit, it)).collect();
        let mut differ: BTreeSet<UnitName> =
            there.difference(&asked).map(|(other, _)| other.clone()).collect();
        differ.extend(asked.into_iter().filter(|it| !self.is_made(unit, it)).map(|(other, _)| other));
        Ok(differ)
    }

    /// Makes the links that are missing.
    pub(super) fn add_links(&self, unit: &UnitName, text: &str) -> Result<(), SystemdError> {
        tell_ignored(unit, text);
        let asked = asked(unit, Some(text));
        let missing: Vec<_> = asked.iter().filter(|it| !self.is_made(unit, it)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let mut noted = self.noted(unit)?;
        noted.extend(missing.iter().copied().cloned());
        self.note(unit, &noted)?;
        for it in missing {
            let directory = self.directory(it);
            fs::create_dir_all(&directory).map_err(|e| failed("cannot make", &directory, e))?;
            link(&self.layout.units().join(unit.as_str()), &directory.join(unit.as_str()))?;
        }
        Ok(())
    }

    /// Returns the units that want one although its text, as it is on disk, does not ask for that: another
    /// text was to come, and did not.
    pub(in crate::systemd) fn links_left(&self, unit: &UnitName) -> Result<BTreeSet<UnitName>, SystemdError> {
        let noted = self.noted(unit)?;
        if noted.is_empty() {
            return Ok(BTreeSet::new());
        }
        let text = self.text(unit)?;
        let asked = asked(unit, text.as_deref());
        let left = noted.difference(&asked).filter(|it| self.is_linked(unit, it));
        Ok(left.map(|(other, _)| other.clone()).collect())
    }

    /// Removes the links that the text on disk does not ask for.
    pub(in crate::systemd) fn drop_links_left(&self, unit: &UnitName) -> Result<(), SystemdError> {
        let text = self.text(unit)?;
        self.drop_links(unit, text.as_deref())
    }

    fn text(&self, unit: &UnitName) -> Result<Option<String>, SystemdError> {
        let text = read(&self.layout.units().join(unit.as_str()))?;
        Ok(text.map(|text| String::from_utf8_lossy(&text).into_owned()))
    }

    /// Removes the links that a text does not ask for; without a text, all.
    pub(super) fn drop_links(&self, unit: &UnitName, text: Option<&str>) -> Result<(), SystemdError> {
        let noted = self.noted(unit)?;
        if noted.is_empty() {
            return remove_if_there(&self.note_of(unit), text);
        }
        let asked = asked(unit, text);
        for it in noted.difference(&asked) {
            if self.is_linked(unit, it) {
                remove(&self.directory(it).join(unit.as_str()))?;
            }
            remove_if_empty(&self.directory(it))?;
        }
        if asked.is_empty() {
            return remove(&self.note_of(unit));
        }
        // What is noted too much does no harm, and a full disk must not keep the rest from being done.
        if noted != asked {
            let _ = self.note(unit, &asked.intersection(&noted).cloned().collect());
        }
        Ok(())
    }

    fn note_of(&self, unit: &UnitName) -> PathBuf {
        self.layout.wanted().join(unit.as_str())
    }

    fn note(&self, unit: &UnitName, links: &Links) -> Result<(), SystemdError> {
        let lines = links.iter().map(|(other, wants)| format!("{other}.{}\n", wants.suffix()));
        write(&self.note_of(unit), &lines.collect::<String>())
    }

    /// Returns what was noted of a unit; lines that are not flotilla's are none.
    fn noted(&self, unit: &UnitName) -> Result<Links, SystemdError> {
        let Some(text) = read(&self.note_of(unit))? else { return Ok(Links::new()) };
        let suffixes: BTreeMap<_, _> = Wants::ALL.map(|wants| (wants.suffix(), wants)).into_iter().collect();
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().filter_map(|line| line.rsplit_once('.'));
        Ok(lines.filter_map(|(other, suffix)| Some((other.parse().ok()?, *suffixes.get(suffix)?))).collect())
    }

    fn directory(&self, (other, wants): &(UnitName, Wants)) -> PathBuf {
        self.layout.links.join(format!("{other}.{}", wants.suffix()))
    }

    /// Tells whether there is a link of flotilla's.
    fn is_linked(&self, unit: &UnitName, it: &(UnitName, Wants)) -> bool {
        let to = fs::read_link(self.directory(it).join(unit.as_str()));
        to.is_ok_and(|to| to == self.layout.units().join(unit.as_str()))
    }

    /// Tells whether nothing is to be linked: there is a link already, perhaps the machine's own.
    fn is_made(&self, unit: &UnitName, it: &(UnitName, Wants)) -> bool {
        fs::symlink_metadata(self.directory(it).join(unit.as_str())).is_ok()
    }

    /// Notes on disk whether systemd may not have read all links.
    pub(in crate::systemd) fn mark_unread(&self, unread: bool) -> Result<(), SystemdError> {
        let mark = self.layout.unread_links();
        match unread {
            true => fs::write(&mark, "").map_err(|e| failed("cannot write", &mark, e)),
            false => remove(&mark),
        }
    }

    /// Tells whether an agent before this one left links that systemd may not have read.
    pub(in crate::systemd) fn has_unread_links(&self) -> bool {
        self.layout.unread_links().exists()
    }
}

/// Takes a note away that says nothing; most units never had one.
fn remove_if_there(note: &Path, text: Option<&str>) -> Result<(), SystemdError> {
    if text.is_none() { remove(note) } else { Ok(()) }
}

/// Returns what a text asks for.
fn asked(unit: &UnitName, text: Option<&str>) -> Links {
    let Some(text) = text.filter(|text| text.contains(SECTION)) else { return Links::new() };
    // It was checked when it was submitted; what cannot be parsed asks for nothing.
    let Ok(file) = UnitFile::parse(unit.as_str(), text.as_bytes()) else { return Links::new() };
    let mut asked = file.install(unit).wanted_by;
    asked.retain(|(other, _)| other.as_str().len() <= LONGEST_NAME && !comes_first(unit, other));
    asked
}

/// Tells whether a unit that wants others comes before flotillad, and this one after it. A target comes after what
/// it wants, so that would be a circle, which systemd breaks by forgetting a job, perhaps flotillad's own.
fn comes_first(unit: &UnitName, other: &UnitName) -> bool {
    is_ordered(kind(unit.unit_type().suffix())) && EARLY.contains(&other.as_str())
}

/// Says which of the links are not made that a text asks for.
fn tell_ignored(unit: &UnitName, text: &str) {
    let file = text.contains(SECTION).then(|| UnitFile::parse(unit.as_str(), text.as_bytes()).ok()).flatten();
    let wanted_by = file.map(|file| file.install(unit).wanted_by).unwrap_or_default();
    for (other, wants) in wanted_by.iter().filter(|(other, _)| comes_first(unit, other)) {
        let wants = wants.suffix();
        tracing::warn!(
            %unit, %other, wants,
            "[Install] is not followed there: the other comes before flotillad at every boot, and flotilla's units \
             after it. Take it away, or name flotilla.target's like: multi-user.target"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::*, *};
    use std::os::unix::fs::symlink;

    const WANTED: &str =
        "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=a.target b@.target\nRequiredBy=a.target\n";
    const LESS: &str = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=c.target\nRequiredBy=a.target\n";

    fn links(p: &Place) -> Vec<String> {
        let below = everything_below(&p.layout.links).into_iter();
        let strip =
            |path: String| path.strip_prefix(&format!("{}/", p.layout.links.display())).map(str::to_owned);
        let mut links: Vec<String> =
            below.filter_map(strip).filter(|it| it.contains(".wants") || it.contains(".requires")).collect();
        links.sort();
        links
    }

    fn names<const N: usize>(names: [&str; N]) -> BTreeSet<UnitName> {
        names.into_iter().map(name).collect()
    }

    #[test]
    fn a_unit_is_wanted_as_its_text_says_and_nothing_is_left_of_it() {
        let (p, unit) = (place(), name("web@1.service"));
        let before = everything_below(&p.layout.run);
        assert_eq!(p.files.link_changes(&unit, Some(WANTED)).unwrap(), names(["a.target", "b@.target"]));
        p.files.install(&unit, WANTED).unwrap();
        assert!(p.files.is_installed(&unit, WANTED).unwrap());
        let all = [
            "a.target.requires",
            "a.target.requires/web@1.service",
            "a.target.wants",
            "a.target.wants/web@1.service",
            "b@.target.wants",
            "b@.target.wants/web@1.service",
        ];
        assert_eq!(links(&p), all);
        let to = fs::read_link(p.layout.links.join(all[1])).unwrap();
        assert_eq!(to, p.layout.units().join("web@1.service"));
        // Another text: what it does not ask for goes.
        assert_eq!(
            p.files.link_changes(&unit, Some(LESS)).unwrap(),
            names(["a.target", "b@.target", "c.target"])
        );
        p.files.install(&unit, LESS).unwrap();
        assert_eq!(
            links(&p),
            [
                "a.target.requires",
                "a.target.requires/web@1.service",
                "c.target.wants",
                "c.target.wants/web@1.service"
            ]
        );
        assert!(p.files.link_changes(&unit, Some(LESS)).unwrap().is_empty());
        assert_eq!(p.files.link_changes(&unit, None).unwrap(), names(["a.target", "c.target"]));
        p.files.install(&unit, TEXT).unwrap();
        assert_eq!(links(&p), [""; 0]);
        assert!(!p.layout.wanted().join("web@1.service").exists());
        p.files.install(&unit, WANTED).unwrap();
        p.files.remove(&unit).unwrap();
        assert_eq!(everything_below(&p.layout.links), [""; 0]);
        assert_eq!(everything_below(&p.layout.run), before);
    }

    #[test]
    fn what_comes_before_flotillad_wants_nothing_that_comes_after_it() {
        let (p, unit) = (place(), name("a.service"));
        let text = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=network-online.target a.target basic.target\n";
        p.files.install(&unit, text).unwrap();
        assert_eq!(links(&p), ["a.target.wants", "a.target.wants/a.service"]);
        assert!(p.files.is_installed(&unit, text).unwrap());
        // What is not ordered after flotillad may be.
        let socket = name("a.socket");
        let text = "[Socket]\nListenStream=/run/s\n[Install]\nWantedBy=basic.target\n";
        p.files.install(&socket, text).unwrap();
        assert!(links(&p).contains(&"basic.target.wants/a.socket".to_owned()));
    }

    #[test]
    fn links_of_a_text_that_was_prepared_and_not_installed_go() {
        let (p, unit) = (place(), name("a.service"));
        p.files.install(&unit, LESS).unwrap();
        assert_eq!(p.files.links_left(&unit).unwrap(), names([]));
        let evidence = evidence(2);
        p.files.make_room(&unit, Some(WANTED), &evidence).unwrap();
        assert_eq!(p.files.links_left(&unit).unwrap(), names(["a.target", "b@.target"]));
        p.files.drop_links_left(&unit).unwrap();
        assert_eq!(p.files.links_left(&unit).unwrap(), names([]));
        assert!(p.files.is_installed(&unit, LESS).unwrap());
    }

    #[test]
    fn what_an_agent_that_was_killed_left_half_done_is_finished_or_removed() {
        let (p, unit) = (place(), name("a.service"));
        // Killed after it was written down, and after the first link.
        let links_of = |text| asked(&unit, Some(text));
        p.files.note(&unit, &links_of(WANTED)).unwrap();
        fs::create_dir_all(p.layout.links.join("b@.target.wants")).unwrap();
        symlink(p.layout.units().join("a.service"), p.layout.links.join("b@.target.wants/a.service"))
            .unwrap();
        assert!(!p.files.is_installed(&unit, WANTED).unwrap());
        p.files.install(&unit, WANTED).unwrap();
        assert_eq!(links(&p).len(), 6);
        // Killed between the links of another text and that text.
        p.files.add_links(&unit, LESS).unwrap();
        assert_eq!(links(&p).len(), 8, "all are noted");
        p.files.remove(&unit).unwrap();
        assert_eq!(everything_below(&p.layout.links), [""; 0]);
        assert!(!p.layout.wanted().join("a.service").exists());
    }

    #[test]
    fn links_of_the_machines_own_are_left_alone() {
        let (p, unit) = (place(), name("a.service"));
        let own = p.layout.links.join("a.target.wants/a.service");
        fs::create_dir_all(own.parent().unwrap()).unwrap();
        symlink("/etc/elsewhere", &own).unwrap();
        p.files.install(&unit, WANTED).unwrap();
        assert!(p.files.is_installed(&unit, WANTED).unwrap());
        p.files.remove(&unit).unwrap();
        assert_eq!(fs::read_link(&own).unwrap(), Path::new("/etc/elsewhere"));
        assert_eq!(links(&p), ["a.target.wants", "a.target.wants/a.service"]);
    }

    #[test]
    fn room_is_made_for_links_too() {
        let (p, unit) = (place(), name("a.service"));
        p.files.install(&unit, WANTED).unwrap();
        p.files.make_room(&unit, Some(LESS), &evidence(7)).unwrap();
        assert_eq!(links(&p).len(), 8, "those of both texts, until the new one is there");
        p.files.install(&unit, LESS).unwrap();
        assert_eq!(links(&p).len(), 4);
    }
}
