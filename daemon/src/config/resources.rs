//! `[resources]`: what a machine has to give, as its operator says. What is said of processors and
//! memory is in place of what was found.

use std::collections::BTreeMap;

use flotilla_registry::records::Capacity;
use serde::Deserialize;
use toml::Spanned;

/// The longest name of a resource, in bytes: it stands in unit files, on command lines and in tables.
const NAME_MAX: usize = 64;

/// The suffixes of sizes and by how many bits they raise, as systemd.exec(5) reads them: base 1024.
const SIZES: [(char, u32); 6] = [('K', 10), ('M', 20), ('G', 30), ('T', 40), ('P', 50), ('E', 60)];

/// A value as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum WrittenAmount {
    Whole(i64),
    Part(f64),
    Text(String),
}

/// What a machine has to give, as far as its operator said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resources {
    /// In place of the processors found, in thousandths.
    pub(crate) cpu_milli: Option<u64>,
    /// In place of the memory found, in bytes.
    pub(crate) memory_bytes: Option<u64>,
    /// Counted resources by name.
    pub(crate) named: BTreeMap<String, u64>,
}

impl Resources {
    /// Takes in what the file says of one resource.
    ///
    /// # Errors
    /// What is wrong with it, with its name.
    pub(super) fn take(&mut self, name: &str, amount: &WrittenAmount) -> Result<(), String> {
        match name {
            "cpu" => self.cpu_milli = Some(cpu_milli(amount)?),
            "memory" => self.memory_bytes = Some(memory_bytes(amount)?),
            name => {
                check_name(name)?;
                self.named.insert(name.to_owned(), count(name, amount)?);
            }
        }
        Ok(())
    }

    /// Returns what the machine has to give, where that much was found.
    pub(crate) fn over(&self, found: &Capacity) -> Capacity {
        Capacity {
            cpu_milli: self.cpu_milli.unwrap_or(found.cpu_milli),
            memory_bytes: self.memory_bytes.unwrap_or(found.memory_bytes),
            named: self.named.clone(),
        }
    }
}

/// Reads what a table of the file says.
pub(super) fn read(
    written: &BTreeMap<Spanned<String>, WrittenAmount>,
) -> Result<Resources, (&Spanned<String>, String)> {
    let mut resources = Resources::default();
    for (name, amount) in written {
        resources.take(name.get_ref(), amount).map_err(|why| (name, why))?;
    }
    Ok(resources)
}

fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !name.is_empty() && name.len() <= NAME_MAX && name.chars().all(plain) {
        return Ok(());
    }
    Err(format!(
        "resources.`{name}` cannot be asked for by Reserve=; expected letters, digits, `.`, `_` and `-`, at most \
         {NAME_MAX}"
    ))
}

fn count(name: &str, amount: &WrittenAmount) -> Result<u64, String> {
    let number = match amount {
        WrittenAmount::Whole(number) => u64::try_from(*number).ok(),
        WrittenAmount::Part(_) | WrittenAmount::Text(_) => None,
    };
    number.ok_or_else(|| format!("resources.{name}: expected how many there are, a whole number as 2 is"))
}

fn cpu_milli(amount: &WrittenAmount) -> Result<u64, String> {
    let cores = match amount {
        WrittenAmount::Whole(cores) => Some(*cores as f64),
        WrittenAmount::Part(cores) => Some(*cores),
        WrittenAmount::Text(text) => match text.trim().strip_suffix('%') {
            Some(percent) => percent.trim().parse::<f64>().ok().map(|percent| percent / 100.0),
            None => text.trim().parse().ok(),
        },
    };
    cores
        .filter(|cores| cores.is_finite() && *cores >= 0.0)
        .map(|cores| (cores * 1_000.0).round() as u64)
        .ok_or_else(|| "resources.cpu: expected a number of processors, as 3.5 or \"350%\"".to_owned())
}

fn memory_bytes(amount: &WrittenAmount) -> Result<u64, String> {
    let bytes = match amount {
        WrittenAmount::Whole(bytes) => u64::try_from(*bytes).ok(),
        WrittenAmount::Part(_) => None,
        WrittenAmount::Text(text) => size(text.trim()),
    };
    bytes.ok_or_else(|| "resources.memory: expected bytes, or a size as \"12G\" (base 1024)".to_owned())
}

fn size(text: &str) -> Option<u64> {
    let text = text.strip_suffix('B').unwrap_or(text);
    let suffix = SIZES.iter().find_map(|(letter, bits)| Some((text.strip_suffix(*letter)?, *bits)));
    let (number, bits) = suffix.unwrap_or((text, 0));
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << bits);
    }
    let part: f64 = number.parse().ok()?;
    let bytes = part * (1_u64 << bits) as f64;
    (part.is_finite() && bytes >= 0.0 && bytes < u64::MAX as f64).then(|| bytes.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_systemd_does() {
        let rows = [("12G", 12 << 30), ("1.5M", 3 << 19), ("700", 700), ("64KB", 64 << 10), ("0", 0)];
        for (text, bytes) in rows {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for bad in ["", "G", "12X", "-1", "-1G", "inf", "NaN", "1 G", "99999999999E"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_said_is_in_place_of_what_was_found() {
        let found = Capacity { cpu_milli: 4_000, memory_bytes: 1 << 30, named: BTreeMap::new() };
        let said =
            Resources { cpu_milli: Some(3_500), named: [("gpu".to_owned(), 2)].into(), ..Default::default() };
        let expected = Capacity { cpu_milli: 3_500, named: said.named.clone(), ..found.clone() };
        assert_eq!(said.over(&found), expected);
        assert_eq!(Resources::default().over(&found), found);
    }
}
